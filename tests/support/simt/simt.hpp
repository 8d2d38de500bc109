// SPDX-License-Identifier: Apache-2.0
// What runs the emulated kernels: scheduler.cpp and device.cpp, which no sanitizer instruments, as seen by shim.hpp,
// which every one does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include <kvevict/cuda/shim/extent.hpp>

namespace simt {

using kvevict::cuda::extent;

// 0: threads and blocks in order; 1: last one first; else a random order with this seed
inline std::uint64_t schedule = 0;
// that a block may have, as devices made from now on are told: the least of all devices, not a limit
inline std::size_t shared_bytes = 99 << 10;

// For launch: calls `body` for every thread of every block, to the end or to an error (cuda_error).
struct grid_run {
  extent grid, block;
  std::size_t shared;
  char const* name;
  std::function<void(extent index, extent block)> body;
};
void run(grid_run const& r);

// For a thread that runs.
// ends the launch with this error, prefixed with kernel, block and thread
[[noreturn]] void fail(std::string const& what);
// the array of KVEVICT_SHARED at `site`, or (null) the thread's next one of the launch's
void* shared(void const* site, std::size_t bytes);
void maybe_yield();  // in a random schedule, another thread may go first

/// All threads of a block, or the lanes of `mask`, meet. For shuffles the result is the value of lane `source`, for
/// votes the ballot.
enum class meeting : std::uint8_t { sync_block, sync_warp, shuffle, shuffle_up, shuffle_xor, ballot, multiply_add };
std::uint64_t meet(meeting kind, std::uint32_t mask = ~0u, std::uint64_t value = 0, std::uint32_t source = 0);

/// A lane's part of a matrix product: `meet(multiply_add)` with its address as the value.
struct matrix_part {
  std::uint32_t const *a, *b;
  float* d;
  float (*widen)(std::uint16_t);
};

// Device memory, which cannot be touched unless a stream works.
void* allocate(std::size_t bytes);
void release(void* p);
void require_device(void const* p, std::size_t bytes, char const* call);  // cuda_error unless inside one allocation
void require_host(void const* p, char const* call);

/// Work of a stream, in order; nothing runs before it is synchronized, so that whoever forgets to wait reads what was
/// there before.
using queue = std::deque<std::function<void()>>;
void synchronize(queue& q);

}  // namespace simt
