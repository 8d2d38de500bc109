// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that run beside the arithmetic. nvcc's half of the layer (see shim.hpp): not run
// on a GPU yet.
#pragma once

#include <kvevict/cuda/shim/thread.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Begins a copy of 16 bytes, both ends aligned to 16; with `valid` < 16 only so many are read and the rest become zero
/// (0 reads nothing, but the address must still be a valid one). The destination is undefined until this thread has
/// waited; other threads then see it after a barrier.
__device__ __forceinline__ void copy_async16(thread&, void* shared, void const* global, std::uint32_t valid = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<std::uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(global)), "r"(valid)
               : "memory");
}
/// Closes a group: the copies begun since the last one.
__device__ __forceinline__ void commit_async(thread&) { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most `Pending` of this thread's latest groups are under way. Every copy is waited for before the kernel
/// ends.
template <int Pending = 0> __device__ __forceinline__ void wait_async(thread&) {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
