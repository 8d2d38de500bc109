// SPDX-License-Identifier: Apache-2.0
// A thread pool for contexts whose engine lends none. Opt-in: kvevict.hpp does not include it, and only it needs Eigen.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include <unsupported/Eigen/CXX11/ThreadPool>

#include <kvevict/core/host.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
/// Eigen's work-stealing pool as an executor. The calling thread takes part, so `threads(n)` starts n − 1; `threads()`
/// takes one per core. Outlives the contexts made from it. A call does not allocate; calls from inside a task are not
/// allowed.
///
///   #include <kvevict/threads.hpp>
///   kvevict::threads pool(8);
///   kvevict::host ctx(pool.as_executor());
class threads {
 public:
  explicit threads(int count = static_cast<int>(std::thread::hardware_concurrency()))
      : count_(count < 1 ? 1 : count), pool_(count_ > 1 ? std::make_unique<Eigen::ThreadPool>(count_ - 1) : nullptr) {}

  int count() const { return count_; }

  executor as_executor(std::int64_t least_work = executor{}.least_work) {
    executor e;
    e.least_work = least_work;
    e.run = &run;
    e.pool = this;
    e.concurrency = count_;
    return e;
  }

 private:
  struct job {
    executor::task_function task;
    void* state;
    Eigen::Barrier done;
    std::atomic<std::int64_t> next{1};
  };

  static void run(void* self, std::int64_t count, executor::task_function task, void* state) {
    auto& pool = static_cast<threads*>(self)->pool_;
    if (pool == nullptr || count <= 1) {
      for (std::int64_t i = 0; i < count; ++i) task(state, i);
      return;
    }
    job j{task, state, Eigen::Barrier(static_cast<unsigned>(count - 1))};
    // One captured pointer: std::function keeps it in place.
    for (std::int64_t i = 1; i < count; ++i)
      pool->Schedule([&j] {
        j.task(j.state, j.next.fetch_add(1, std::memory_order_relaxed));
        j.done.Notify();
      });
    task(state, 0);
    j.done.Wait();
  }

  int count_;
  std::unique_ptr<Eigen::ThreadPool> pool_;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
