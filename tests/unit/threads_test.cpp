// SPDX-License-Identifier: Apache-2.0
#include <kvevict/threads.hpp>

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"

namespace threads_test {

using namespace kvevict;

TEST_CASE("every item runs once, on as many threads as asked for") {
  for (int const n : {1, 2, 3, 8}) {
    threads pool(n);
    CHECK(pool.count() == n);
    host ctx(pool.as_executor(0));
    CHECK(ctx.concurrency() == n);
    for (std::int64_t const count : {0, 1, 2, 7, 1000}) {
      std::vector<int> runs(static_cast<std::size_t>(count), 0);  // not atomic: each item belongs to one thread
      std::vector<std::int64_t> per_slot(static_cast<std::size_t>(n), 0);
      ctx.for_each(count, [&](std::int64_t i, std::int32_t slot) {
        ++runs[static_cast<std::size_t>(i)], ++per_slot[static_cast<std::size_t>(slot)];
      });
      CHECK(runs == std::vector<int>(static_cast<std::size_t>(count), 1));
      CHECK(std::accumulate(per_slot.begin(), per_slot.end(), std::int64_t{0}) == count);
    }
  }
}

TEST_CASE("tasks of one call can wait for each other: they run at the same time") {
  threads pool(3);
  host ctx(pool.as_executor(0));
  std::atomic<int> arrived{0};
  ctx.for_each(3, [&](std::int64_t, std::int32_t) {
    ++arrived;
    while (arrived.load() < 3) std::this_thread::yield();
  });
  CHECK(arrived.load() == 3);
}

TEST_CASE("a call of the pool does not allocate") {
  threads pool(4);
  host ctx(pool.as_executor(0));
  std::atomic<std::int64_t> sum{0};
  auto const work = [&](std::int64_t i, std::int32_t) { sum += i; };
  ctx.for_each(100, work);
  auto const before = allocations();
  for (int i = 0; i < 1000; ++i) ctx.for_each(100, work);
  CHECK(allocations() == before);
  CHECK(sum.load() == 1001 * 4950);
}

TEST_CASE("a pool may go before it was used, and serve several contexts in turn") {
  { threads idle(3); }
  threads pool(2);
  host a(pool.as_executor(0)), b(pool.as_executor(0));
  std::atomic<int> runs{0};
  a.for_each(5, [&](std::int64_t, std::int32_t) { ++runs; });
  b.for_each(5, [&](std::int64_t, std::int32_t) { ++runs; });
  CHECK(runs.load() == 10);
}

}  // namespace threads_test
