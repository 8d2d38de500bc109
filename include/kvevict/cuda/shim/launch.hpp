// SPDX-License-Identifier: Apache-2.0
// Runs a kernel. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <atomic>
#include <type_traits>

#include <kvevict/cuda/shim/stream.hpp>
#include <kvevict/cuda/shim/thread.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

template <class Kernel>
__global__ void __launch_bounds__(max_threads_of<Kernel>(), least_blocks_of<Kernel>())
    entry(__grid_constant__ Kernel const kernel) {
  thread t;
  kernel(t);
}

/// Lets a kernel have all the shared memory that a block of this device may have. Beyond 48 KiB, with its own arrays,
/// it has to be asked for; not for one launch's bytes, which a launch from another thread would shrink.
template <class Kernel> void allow_all_shared_memory() {
  static std::atomic<std::uint64_t> allowed{0};  // a bit per device
  int device = 0, most = 0;
  cudaFuncAttributes of{};
  char const *const name = name_of_kernel<Kernel>(), *const remedy =
                                                         "was the library compiled for this device's architecture?";
  require(cudaGetDevice(&device), name, remedy);
  if (device < 64 && (allowed.load() >> device & 1) != 0) return;
  require(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name, remedy);
  require(cudaFuncGetAttributes(&of, entry<Kernel>), name, remedy);
  require(cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               most - static_cast<int>(of.sharedSizeBytes)),
          name, remedy);
  if (device < 64) allowed.fetch_or(std::uint64_t{1} << device);
}

/// Puts `kernel` into the stream for every thread of `grid` blocks of `block` threads, each block with `shared` bytes
/// for `thread::shared`.
/// Cost     no synchronisation, no allocation.
/// Errors   cuda_error if the device cannot run it, or the stream is not one of the current device, at once; what goes
///          wrong inside surfaces where the stream is synchronized.
template <class Kernel> void launch(stream s, extent grid, extent block, std::size_t shared, Kernel const& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>, "launch: a kernel holds pointers and sizes by value");
  static_assert(sizeof(Kernel) <= limits::parameter_bytes,
                "launch: a kernel's parameters have at most 4096 bytes; put tables into memory");
  require_launchable(grid, block, shared, max_threads_of<Kernel>(), name_of_kernel<Kernel>());
  if (shared != 0) allow_all_shared_memory<Kernel>();
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(block.x, block.y, block.z);
  config.dynamicSmemBytes = shared;
  config.stream = s.handle();
  require(cudaLaunchKernelEx(&config, entry<Kernel>, kernel), name_of_kernel<Kernel>(),
          "was the library compiled for this device's architecture, is the stream one of this device, and has it that "
          "much shared memory?");
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
