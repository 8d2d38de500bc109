// SPDX-License-Identifier: Apache-2.0
// Sizes of grids and blocks, and the limits of every device since compute capability 8.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <kvevict/cuda/shim/error.hpp>
#include <kvevict/cuda/shim/platform.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

inline constexpr std::uint32_t warp_size = 32;
inline constexpr std::uint32_t full_warp = 0xffffffffu;

/// A grid in blocks, a block in threads, or an index into either.
struct extent {
  std::uint32_t x = 1, y = 1, z = 1;
};

KVEVICT_HOST_DEVICE constexpr std::uint64_t volume(extent e) { return std::uint64_t{e.x} * e.y * e.z; }

/// Bytes that `thread::shared<T>(count)` takes: whole 16-byte units, so that every array can be read 128 bits at a
/// time.
template <class T> KVEVICT_HOST_DEVICE constexpr std::size_t shared_bytes(std::size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}

namespace limits {
inline constexpr std::uint32_t block_threads = 1024, block_xy = 1024, block_z = 64;
inline constexpr std::uint32_t grid_x = 0x7fffffffu, grid_yz = 65535;
inline constexpr std::size_t static_shared = 48 << 10;  // a kernel's own arrays
// H100; an A100 has 163 KiB, a GeForce 99 KiB: the runtime refuses there
inline constexpr std::size_t dynamic_shared = 227 << 10;
inline constexpr std::size_t parameter_bytes = 4096;
}  // namespace limits

template <class Kernel> constexpr std::uint32_t max_threads_of() {
  if constexpr (requires { Kernel::max_threads; })
    return static_cast<std::uint32_t>(Kernel::max_threads);
  else
    return limits::block_threads;
}

/// How many of its largest blocks an SM shall hold at least: more leave a thread fewer registers.
template <class Kernel> constexpr std::uint32_t least_blocks_of() {
  if constexpr (requires { Kernel::least_blocks; })
    return static_cast<std::uint32_t>(Kernel::least_blocks);
  else
    return 1;
}

/// The compiler's own text, which names the kernel.
template <class Kernel> char const* name_of_kernel() { return __PRETTY_FUNCTION__; }

inline std::string text_of(extent e) {
  return std::string(1, '(') + std::to_string(e.x) + ", " + std::to_string(e.y) + ", " + std::to_string(e.z) + ")";
}

/// Refuses what no device can run; both implementations of the layer ask it before a launch.
inline void require_launchable(extent grid, extent block, std::size_t shared, std::uint32_t max_threads,
                               char const* kernel) {
  auto const refuse = [&](std::string const& what) { raise("launch of " + std::string(kernel) + ": " + what); };
  if (volume(grid) == 0 || volume(block) == 0)
    refuse("grid " + text_of(grid) + " of blocks " + text_of(block) + " is empty; return before launching nothing");
  if (grid.x > limits::grid_x || grid.y > limits::grid_yz || grid.z > limits::grid_yz)
    refuse("grid " + text_of(grid) +
           " is beyond (2^31-1, 65535, 65535); let a block do more, or put the long axis in x");
  if (block.x > limits::block_xy || block.y > limits::block_xy || block.z > limits::block_z ||
      volume(block) > max_threads)
    refuse("block " + text_of(block) + " has more threads than the " + std::to_string(max_threads) +
           " that the device (1024) or the kernel's max_threads allows; use a smaller block");
  if (shared > limits::dynamic_shared)
    refuse(std::to_string(shared) + " bytes of shared memory; a block has at most " +
           std::to_string(limits::dynamic_shared) + ": use smaller tiles");
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
