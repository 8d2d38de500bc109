// SPDX-License-Identifier: Apache-2.0
// Who a thread is, its block's shared memory, its barriers. nvcc's half of the layer (see shim.hpp): not run on a GPU
// yet.
#pragma once

#include <kvevict/cuda/shim/extent.hpp>

#if defined(__CUDACC__)

/// `count` elements that all threads of a block share, of a size known when compiling; at most 48 KiB per kernel.
/// Aligned to 16 bytes.
#define KVEVICT_SHARED(t, type, name, count) __shared__ alignas(16) type name[count]

namespace kvevict::inline KVEVICT_ABI::cuda {

/// What the layer hands to a kernel. Barriers and `shared` are called by all threads of the block, in the same order.
class thread {
 public:
  __device__ __forceinline__ extent index() const { return {threadIdx.x, threadIdx.y, threadIdx.z}; }
  __device__ __forceinline__ extent block() const { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
  __device__ __forceinline__ extent block_size() const { return {blockDim.x, blockDim.y, blockDim.z}; }
  __device__ __forceinline__ extent grid_size() const { return {gridDim.x, gridDim.y, gridDim.z}; }

  /// Place in the block with x fastest; its low five bits are the lane, the rest the warp.
  __device__ __forceinline__ std::uint32_t linear_index() const {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  }
  __device__ __forceinline__ std::uint32_t lane() const { return linear_index() % warp_size; }
  __device__ __forceinline__ std::uint32_t warp() const { return linear_index() / warp_size; }

  /// The next `count` elements of the launch's shared bytes, not initialised; takes shared_bytes<T>(count) of them.
  template <class T> __device__ __forceinline__ T* shared(std::size_t count) {
    extern __shared__ __align__(16) unsigned char kvevict_dynamic_shared[];
    T* const p = reinterpret_cast<T*>(kvevict_dynamic_shared + used_);
    used_ += static_cast<std::uint32_t>(shared_bytes<T>(count));
    return p;
  }

  /// All threads of the block arrive before one goes on; what they wrote to shared and global memory is seen by all.
  __device__ __forceinline__ void sync_block() { __syncthreads(); }
  /// The same among the lanes of `mask`, each of which passes the same mask.
  __device__ __forceinline__ void sync_warp(std::uint32_t mask = full_warp) { __syncwarp(mask); }

 private:
  std::uint32_t used_ = 0;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
