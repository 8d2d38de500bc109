// SPDX-License-Identifier: Apache-2.0
// 128-bit loads and stores. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <kvevict/cuda/shim/thread.hpp>
#include <kvevict/cuda/shim/vec128.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Shared or global memory, aligned to 16 bytes.
__device__ __forceinline__ vec128 load_vec128(thread&, void const* p) {
  uint4 const v = *static_cast<uint4 const*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ void store_vec128(thread&, void* p, vec128 v) {
  *static_cast<uint4*>(p) = make_uint4(v.words[0], v.words[1], v.words[2], v.words[3]);
}

/// Global memory that nothing writes during the kernel and that is read once: past the first-level cache.
__device__ __forceinline__ vec128 load_once_vec128(thread&, void const* p) {
  vec128 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.words[0]), "=r"(v.words[1]), "=r"(v.words[2]), "=r"(v.words[3])
      : "l"(__cvta_generic_to_global(p)));
  return v;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
