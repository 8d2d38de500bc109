// SPDX-License-Identifier: Apache-2.0
// Halves to floats by one instruction. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <kvevict/core/dtype.hpp>
#include <kvevict/cuda/shim/platform.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// to_float of a number; a NaN stays one, with other bits.
template <class T> __device__ __forceinline__ float widen(T x) { return to_float(x); }
__device__ __forceinline__ float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
