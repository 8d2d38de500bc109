// SPDX-License-Identifier: Apache-2.0
// Runs a kernel. nvcc's half of the layer (see layer.hpp): not run on a GPU yet.
#pragma once

#include <type_traits>

#include <kvevict/cuda/stream.hpp>
#include <kvevict/cuda/thread.hpp>

#if defined(__CUDACC__)

namespace kvevict {
inline namespace v0 {
namespace cuda {

template <class Kernel> __global__ void __launch_bounds__(max_threads_of<Kernel>(), 1) entry(__grid_constant__ Kernel const kernel) {
  thread t;
  kernel(t);
}

/// Puts `kernel` into the stream for every thread of `grid` blocks of `block` threads, each block with `shared` bytes for `thread::shared`.
/// Cost     no synchronisation, no allocation. Beyond 48 KiB of shared memory one more call of the runtime.
/// Errors   cuda_error if the device cannot run it, at once; what goes wrong inside surfaces where the stream is synchronized.
template <class Kernel> void launch(stream s, extent grid, extent block, std::size_t shared, Kernel const& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>, "launch: a kernel holds pointers and sizes by value");
  static_assert(sizeof(Kernel) <= limits::parameter_bytes, "launch: a kernel's parameters have at most 4096 bytes; put tables into memory");
  require_launchable(grid, block, shared, max_threads_of<Kernel>(), name_of_kernel<Kernel>());
  if (shared > limits::static_shared)
    require(cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)), name_of_kernel<Kernel>(),
            "this device has less shared memory; use smaller tiles");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(block.x, block.y, block.z);
  config.dynamicSmemBytes = shared;
  config.stream = s.handle();
  require(cudaLaunchKernelEx(&config, entry<Kernel>, kernel), name_of_kernel<Kernel>(),
          "was the library compiled for this device's architecture, and is the stream one of this device?");
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict

#endif
