// SPDX-License-Identifier: Apache-2.0
// What runs the emulated kernels: scheduler.cpp and device.cpp, which no sanitizer instruments, as seen by layer.hpp, which every one does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include <kvevict/cuda/extent.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda { class thread; }
}  // namespace v0
}  // namespace kvevict

namespace simt {

using kvevict::cuda::extent;

struct options_type {
  std::uint64_t schedule = 0;  // 0: threads and blocks in order; 1: last one first; else a random order with this seed
  std::size_t shared_limit = kvevict::cuda::limits::dynamic_shared;  // static and dynamic together; 163 KiB is an A100, 99 KiB a GeForce
};
options_type& options();

// For launch: one run of a kernel, to its end or to an error (cuda_error).
using body = void (*)(void const* kernel, kvevict::cuda::thread& t);
struct grid_run {
  extent grid, block;
  std::size_t shared;
  char const* name;
  void const* kernel;
  body call;
};
void run(grid_run const& r);

// For a thread that runs.
[[noreturn]] void fail(std::string const& what);  // ends the launch with this error, prefixed with kernel, block and thread
void* shared_dynamic(std::size_t bytes);
void* shared_static(void const* site, std::size_t bytes);
void sync_block();
void maybe_yield();  // in a random schedule, another thread may go first
inline void require_aligned(void const* p, char const* call) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0) fail(std::string(call) + ": the address is not aligned to 16 bytes");
}

/// The lanes of `mask` meet. For shuffles the result is the value of lane `source`, for votes the ballot.
enum class meeting : std::uint8_t { sync_warp, shuffle, shuffle_up, shuffle_xor, ballot, multiply_add };
std::uint64_t meet(meeting kind, std::uint32_t mask, std::uint64_t value = 0, std::uint32_t source = 0);

/// A lane's part of a matrix product: `meet(multiply_add)` with its address as the value.
struct matrix_part {
  std::uint32_t const *a, *b;
  float* d;
  float (*widen)(std::uint16_t);
};

/// Asynchronous copies of the running thread, in the order in which they were begun.
struct async_copy {
  void* to;
  void const* from;
  std::uint32_t valid, group;
};
void begin(async_copy const& c);
void commit();
bool arrives(std::uint32_t pending, async_copy& c);  // takes the next one that is older than the latest `pending` groups

// Device memory: between the operations of a stream it cannot be touched.
void* allocate(std::size_t bytes);
void release(void* p);
void require_device(void const* p, std::size_t bytes, char const* call);  // cuda_error unless inside one allocation
void require_host(void const* p, char const* call);
class unlocked {  // for the length of an operation
 public:
  unlocked();
  ~unlocked() noexcept(false);  // cuda_error if something wrote beyond an allocation
};

/// Work of a stream, in order; nothing runs before it is synchronized, so that whoever forgets to wait reads what was there before.
struct queue;
queue* make_queue();
void destroy(queue* q);
void enqueue(queue* q, std::function<void()> work);
void synchronize(queue* q);

}  // namespace simt
