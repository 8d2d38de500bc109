// SPDX-License-Identifier: Apache-2.0
// An executor that throws: nothing that the engine owns has changed, or everything has.
#include <csetjmp>
#include <csignal>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

#include "support/catch.hpp"
#include "support/verbs.hpp"

namespace executor_failure_test {

using namespace support;

namespace {

struct pool_is_gone {};

/// A pool whose run number `fails_at` throws after some tasks have ended.
struct failing_pool {
  std::int64_t fails_at = 0, tasks_before = 0;
  std::int64_t runs = 0;

  kvevict::executor as_executor() {
    kvevict::executor e;
    e.pool = this, e.concurrency = 3, e.least_work = 0;
    e.run = [](void* self, std::int64_t count, kvevict::executor::task_function task, void* state) {
      auto& pool = *static_cast<failing_pool*>(self);
      bool const fails = pool.runs++ == pool.fails_at;
      for (std::int64_t i = 0; i < (fails ? pool.tasks_before : count); ++i) task(state, i);
      if (fails) throw pool_is_gone();
    };
    return e;
  }
};

/// How often the verb runs its executor.
std::int64_t check(verb const& v) {
  bytes const before = v.owned();
  bytes result, after;
  {
    kvevict::host ctx;
    v.call(ctx);
    result = v.result(), after = v.owned();
  }
  v.restore(before), v.forget();
  for (std::int64_t n = 0;; ++n)
    for (std::int64_t const tasks : {0, 1}) {
      failing_pool pool{n, tasks};
      kvevict::host ctx(pool.as_executor());
      bool threw = false, right = false;
      try {
        v.call(ctx);
        right = v.owned() == after && v.result() == result;
      } catch (pool_is_gone const&) {
        threw = true, right = v.owned() == before;
        try {
          right &= v.result().empty();
        } catch (kvevict::contract_violation const&) {  // it says that there is none
        }
      }
      CAPTURE(v.name, n, tasks, threw);
      REQUIRE(right);
      bool const reached = pool.runs > n;
      pool.fails_at = -1;
      v.restore(before);
      v.call(ctx);
      REQUIRE((v.owned() == after && v.result() == result));
      v.restore(before), v.forget();
      if (!reached) return n;
    }
}

template <class Verbs> void check_all(Verbs each) {
  std::int64_t calls = 0, runs = 0;
  each([&](verb const& v) { ++calls, runs += check(v); });
  CHECK(calls > 0);
  CHECK(runs > calls);
}

}  // namespace

TEST_CASE("laws: an executor that throws leaves no keep set behind") {
  check_all([](auto f) { verbs::plans(f); });
}
TEST_CASE("laws: an executor that throws leaves the state as it was, or as it is to be") {
  check_all([](auto f) { verbs::observations(f); });
}
TEST_CASE("laws: an executor that throws leaves the cache as it was, or as it is to be") {
  check_all([](auto f) { verbs::applications(f); });
}

TEST_CASE("laws: an executor that does not run its tasks is found out, and nothing has changed") {
  verbs::applications([](verb const& v) {
    kvevict::executor idle;
    idle.concurrency = 3, idle.least_work = 0;
    idle.run = [](void*, std::int64_t, kvevict::executor::task_function, void*) {};
    kvevict::host ctx(idle);
    bytes const before = v.owned();
    CAPTURE(v.name);
    CHECK(contains(refusal([&] { v.call(ctx); }), "executor::run must run task(state, i) for every i in [0, count)"));
    CHECK(v.owned() == before);
  });
}

namespace {

sigjmp_buf back;
extern "C" void abandon_task(int) { siglongjmp(back, 1); }

/// Gives up a task that hits memory which cannot be written, as an engine does whose cache lies in a file that is gone.
void run_until_fault(void*, std::int64_t count, kvevict::executor::task_function task, void* state) {
  struct sigaction now = {}, segv = {}, bus = {};
  now.sa_handler = abandon_task;
  sigaction(SIGSEGV, &now, &segv), sigaction(SIGBUS, &now, &bus);
  bool const fault = sigsetjmp(back, 1) != 0;
  for (std::int64_t i = 0; !fault && i < count; ++i) task(state, i);
  sigaction(SIGSEGV, &segv, nullptr), sigaction(SIGBUS, &bus, nullptr);
  if (fault) throw pool_is_gone();
}

}  // namespace

TEST_CASE("laws: an executor that gives up a row half-way raises an error that carries the plan") {
  auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  auto* const pool =
      static_cast<std::byte*>(mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(pool != MAP_FAILED);
  auto const tokens = static_cast<std::int32_t>(page / 16);  // of 16 bytes, a page of memory for each sequence
  kvevict::layer_view<> view;
  view.pages.sequences = 4, view.pages.heads = 1, view.pages.page_size = tokens, view.pages.columns = 1;
  std::vector<std::int32_t> const lengths(4, tokens);
  view.lengths = {lengths.data(), 1, 0};
  kvevict::component c;
  auto const stride = static_cast<std::int64_t>(page);
  c.rows = {pool, 0, 4, stride, 0, 16, 0, 16, 1};
  c.what = kvevict::role::k;
  view = view.with(c);
  std::vector<std::int32_t> row;
  for (std::int32_t t = 0; t < tokens; t += 2) row.push_back(t);
  kvevict::keep_set const keep = keep_of(view, {row, row, row, row});
  kvevict::executor e;
  e.run = run_until_fault, e.concurrency = 2, e.least_work = 0;
  kvevict::host ctx(e);
  kvevict::compacted<std::int32_t> done;
  kvevict::compact(ctx, view, keep, kvevict::compaction::stable, done);  // takes its scratch
  REQUIRE(mprotect(pool + 2 * page, page, PROT_READ) == 0);
  bool caught = false;
  try {
    kvevict::compact(ctx, view, keep, kvevict::compaction::stable, done);
  } catch (kvevict::move_interrupted const& error) {
    caught = true;
    CHECK(contains(error.what(), "drop the sequences that have moves"));
    CHECK(error.plan.lengths == std::vector<std::int32_t>(4, tokens / 2));
    CHECK(error.plan.row_begin[3] - error.plan.row_begin[2] == tokens / 2 - 1);
    CHECK_THROWS_AS(std::rethrow_exception(error.cause), pool_is_gone);
  }
  CHECK(caught);
  CHECK_FALSE(done.ok());
  CHECK(mprotect(pool + 2 * page, page, PROT_READ | PROT_WRITE) == 0);
  kvevict::compact(ctx, view, keep, kvevict::compaction::stable, done);  // result and context can be used again
  CHECK(done.length(3, 0) == tokens / 2);
  munmap(pool, 4 * page);
}

TEST_CASE("laws: a relocation that an executor gives up leaves the ledger as it was") {
  auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  auto* const pool =
      static_cast<std::byte*>(mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(pool != MAP_FAILED);
  auto const tokens = static_cast<std::int32_t>(page / 16);
  kvevict::layer_view<> view;
  std::int32_t const table[] = {0, 1}, lengths[] = {tokens, tokens};
  view.pages.entries = table, view.pages.seq_stride = 1;
  view.pages.sequences = 2, view.pages.heads = 1, view.pages.page_size = tokens, view.pages.columns = 1;
  view.lengths = {lengths};
  kvevict::component c;
  c.rows = {pool, 0, 4, static_cast<std::int64_t>(page), 0, 16, 0, 16, 1};
  view = view.with(c);
  std::vector<std::int32_t> row;
  for (std::int32_t t = 1; t < tokens; t += 2) row.push_back(t);
  kvevict::keep_set const keep = keep_of(view, {row, row});
  page_counts ledger(4);
  ledger.count = {1, 1, 0, 0}, ledger.free = {3, 2}, ledger.is_published[0] = 1;
  auto const before = ledger;
  REQUIRE(mprotect(pool + 2 * page, page, PROT_READ) == 0);  // the fresh page
  kvevict::executor e;
  e.run = run_until_fault, e.concurrency = 2, e.least_work = 0;
  kvevict::host ctx(e);
  kvevict::relocated<std::int32_t> done;
  CHECK_THROWS_AS(kvevict::relocate(ctx, view, keep, ledger, done), kvevict::move_interrupted);
  CHECK_FALSE(done.ok());
  CHECK(ledger == before);
  CHECK(mprotect(pool + 2 * page, page, PROT_READ | PROT_WRITE) == 0);
  kvevict::relocate(ctx, view, keep, ledger, done);
  CHECK(done.entries(0)[0] == 2);
  CHECK(done.entries(1)[0] == 1);
  CHECK(ledger.count == std::vector<std::int32_t>{0, 1, 1, 0});
  munmap(pool, 4 * page);
}

}  // namespace executor_failure_test
