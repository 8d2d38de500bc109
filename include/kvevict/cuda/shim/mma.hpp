// SPDX-License-Identifier: Apache-2.0
// Matrix multiply-accumulate on tensor cores. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <kvevict/cuda/shim/fragment.hpp>
#include <kvevict/cuda/shim/thread.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// d += a · b by all 32 lanes of a warp together. Products are exact; in which order and with which rounding they are
/// summed is the device's affair: within a few units of the last place of the largest term.
__device__ __forceinline__ void multiply_add(thread&, accumulator& d, fragment_a<f16> const& a,
                                             fragment_b<f16> const& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d.values[0]), "+f"(d.values[1]), "+f"(d.values[2]), "+f"(d.values[3])
      : "r"(a.registers[0]), "r"(a.registers[1]), "r"(a.registers[2]), "r"(a.registers[3]), "r"(b.registers[0]),
        "r"(b.registers[1]));
}
__device__ __forceinline__ void multiply_add(thread&, accumulator& d, fragment_a<bf16> const& a,
                                             fragment_b<bf16> const& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d.values[0]), "+f"(d.values[1]), "+f"(d.values[2]), "+f"(d.values[3])
      : "r"(a.registers[0]), "r"(a.registers[1]), "r"(a.registers[2]), "r"(a.registers[3]), "r"(b.registers[0]),
        "r"(b.registers[1]));
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
