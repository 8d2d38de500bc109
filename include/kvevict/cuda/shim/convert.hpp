// SPDX-License-Identifier: Apache-2.0
// Between float and the storage types of core/dtype.hpp. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <type_traits>

#include <kvevict/core/dtype.hpp>
#include <kvevict/cuda/shim/platform.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Exact.
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

/// To nearest even, as from_float does on the host; a NaN stays one, with other bits.
template <class T> __device__ __forceinline__ T narrow(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, bf16>) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
  } else {
    static_assert(std::is_same_v<T, f16>, "narrow: float, f16 or bf16");
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
  }
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
