// SPDX-License-Identifier: Apache-2.0
// Arithmetic where the device has an instruction of its own. nvcc's half of the layer (see shim.hpp): not run on a GPU
// yet.
#pragma once

#include <cstdint>

#include <kvevict/cuda/shim/platform.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// One rounding, whatever the compiler's flags; `add` and `multiply` are never fused.
__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float multiply(float a, float b) { return __fmul_rn(a, b); }

/// How many bits are set.
__device__ __forceinline__ std::int32_t count_bits(std::uint32_t x) { return __popc(x); }

/// 2^x and log2(x) to about 2 units of the last place (log2: absolute 2^-22 near 1); the host's bits differ. ftz
/// ("flush to zero"): of results below 2^-126, which only a subnormal float could hold, exp2 makes 0. Without it each
/// costs two multiplications and a comparison more.
__device__ __forceinline__ float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2(float x) {
  float y;
  asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
