// SPDX-License-Identifier: Apache-2.0
// The host context: who runs the work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <limits>
#include <type_traits>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/arena.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Runs `task(state, i)` for every i in [0, count), in any order, on any threads, and returns when all are done.
/// Non-owning and replaceable: an engine lends its own pool by filling in three fields. Default: serial.
///
/// `run` may throw, once every task that it has begun has ended and when it will begin no other. The verb then throws
/// the same, and nothing that the engine owns has changed; or, if it was writing already, it comes to its end without
/// the executor.
struct executor {
  using task_function = void (*)(void* state, std::int64_t index);
  using run_function = void (*)(void* pool, std::int64_t count, task_function task, void* state);

  run_function run = [](void*, std::int64_t count, task_function task, void* state) {
    for (std::int64_t i = 0; i < count; ++i) task(state, i);
  };
  void* pool = nullptr;
  std::int32_t concurrency = 1;       // how many tasks may run at once; scratch grows with it
  std::int64_t least_work = 1 << 16;  // elements below which waking the threads costs more than it saves
};

/// First argument of every verb on the CPU. Serves one thread at a time; policies and views may be shared.
class host {
 public:
  host() = default;
  explicit host(executor e) : executor_(e) {
    KVEVICT_EXPECTS(e.run != nullptr && e.concurrency >= 1,
                    "host: the executor has no run function or a concurrency below 1; fill in both");
  }

  arena& scratch() { return arena_; }
  std::int32_t concurrency() const { return executor_.concurrency; }
  void reserve(std::size_t bytes) { arena_.reserve(bytes); }

  /// f(i, slot) for every i in [0, count): slot < concurrency() is this worker's share of scratch. Items are
  /// handed out one at a time, so results must depend on i alone. f must not throw. `work` says how many elements are
  /// touched in all (a nanosecond each, roughly); a job smaller than the executor's `least_work` runs on the calling
  /// thread. What the executor throws is thrown: it has then done all items, or none, for a task ends when no item is
  /// left.
  template <class F>
  void for_each(std::int64_t count, F&& f, std::int64_t work = std::numeric_limits<std::int64_t>::max()) {
    struct state_type {
      std::remove_reference_t<F>* f;
      std::int64_t count;
      std::atomic<std::int64_t> next{0};
    };
    std::int64_t const workers = std::min<std::int64_t>(count, executor_.concurrency);
    if (workers <= 1 || work < executor_.least_work) {
      for (std::int64_t i = 0; i < count; ++i) f(i, std::int32_t{0});
      return;
    }
    state_type state{&f, count};
    executor_.run(
        executor_.pool, workers,
        [](void* p, std::int64_t worker) {
          auto& s = *static_cast<state_type*>(p);
          for (std::int64_t i; (i = s.next.fetch_add(1, std::memory_order_relaxed)) < s.count;)
            (*s.f)(i, static_cast<std::int32_t>(worker));
        },
        &state);
    KVEVICT_EXPECTS(state.next.load(std::memory_order_relaxed) >= count,
                    "host: the executor has returned without running its tasks; executor::run must run task(state, i) "
                    "for every i in [0, count)");
  }

  /// What for_each had done when the executor threw; `some`: it gave up tasks that had begun.
  enum class progress : std::uint8_t { none, some, all };

  /// for_each for items that change what the caller owns: what the executor throws goes to `thrown`, and the caller
  /// decides what becomes of the work.
  template <class F> progress try_each(std::int64_t count, F&& f, std::int64_t work, std::exception_ptr& thrown) {
#if KVEVICT_EXCEPTIONS
    std::atomic<std::int64_t> begun{0}, done{0};
    try {
      for_each(
          count,
          [&](std::int64_t i, std::int32_t slot) {
            begun.fetch_add(1, std::memory_order_relaxed);
            f(i, slot);
            done.fetch_add(1, std::memory_order_relaxed);
          },
          work);
    } catch (...) {
      thrown = std::current_exception();
      return begun.load() == 0 ? progress::none : done.load() == count ? progress::all : progress::some;
    }
#else
    static_cast<void>(thrown);
    for_each(count, f, work);
#endif
    return progress::all;
  }

 private:
  executor executor_;
  arena arena_;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
