// SPDX-License-Identifier: Apache-2.0
// Every allocation of every verb fails once: nothing that the engine owns has changed then, nothing leaks, the result
// says that it is none, and the same context and result serve the next call.
#include <new>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/verbs.hpp"

namespace allocation_failure_test {

using namespace support;

namespace {

/// What the n-th failure left behind.
struct outcome {
  bool failed = false, asked = false, unchanged = false, says_so = false, goes_on = false, kept_memory = false;
};

outcome fail_at(std::int64_t n, verb const& v, kvevict::executor const& e, bytes const& before, bytes const& result,
                bytes const& after) {
  outcome o;
  std::int64_t const live = live_allocations();
  {
    kvevict::host ctx(e);
    {
      failing_allocation const nth(n);
      try {
        v.call(ctx);
      } catch (std::bad_alloc const&) {
        o.failed = true;
      }
      o.asked = nth.happened();
    }
    o.unchanged = v.owned() == (o.failed ? before : after);
    try {
      o.says_so = v.result() == result || v.result().empty();
    } catch (kvevict::contract_violation const&) {
      o.says_so = o.failed;
    }
    v.restore(before);
    v.call(ctx);
    o.goes_on = v.owned() == after && v.result() == result;
  }
  v.restore(before), v.forget();
  o.kept_memory = live_allocations() != live;
  return o;
}

/// How many allocations the verb makes.
std::int64_t check(verb const& v, kvevict::executor const& e) {
  bytes const before = v.owned();
  bytes result, after;
  {
    kvevict::host ctx(e);
    v.call(ctx);
    result = v.result(), after = v.owned();
  }
  v.restore(before), v.forget();
  for (std::int64_t n = 0;; ++n) {
    outcome const o = fail_at(n, v, e, before, result, after);
    CAPTURE(v.name, e.concurrency, n, o.failed);
    REQUIRE(o.unchanged);
    REQUIRE(o.says_so);
    REQUIRE(o.goes_on);
    REQUIRE_FALSE(o.kept_memory);
    if (!o.asked) return n;
  }
}

template <class Verbs> void check_all(Verbs each, std::int64_t expected) {
  kvevict::executor three;  // one after the other, but each with scratch of its own
  three.concurrency = 3, three.least_work = 0;
  std::int64_t calls = 0, failures = 0;
  each([&](verb const& v) {
    for (auto const& e : {kvevict::executor{}, three}) ++calls, failures += check(v, e);
  });
  CHECK(calls >= expected);
  CHECK(failures > 2 * calls);  // the first call of a context takes its scratch
}

}  // namespace

TEST_CASE("laws: the n-th allocation fails and no other") {
  failing_allocation const second(1);
  std::vector<int> const a(3);
  CHECK_THROWS_AS(std::vector<int>(3), std::bad_alloc);
  CHECK(second.happened());
  CHECK_NOTHROW(std::vector<int>(3));
}

TEST_CASE("laws: a plan whose allocation fails leaks nothing, and its keep set says that it is none") {
  check_all([](auto f) { verbs::plans(f); }, 60);
}

TEST_CASE("laws: an observe whose allocation fails has written nothing") {
  check_all([](auto f) { verbs::observations(f); }, 14);
}

TEST_CASE("laws: compact, apply and replace fail before the first byte moves, or not at all") {
  check_all([](auto f) { verbs::applications(f); }, 66);
}

TEST_CASE("laws: a view whose lengths are those of the last result keeps them when memory runs out") {
  auto const r = verbs::make_room(layouts::layout::head_pages);
  auto& view = r->cache.view;
  reference::generator random(3);
  kvevict::host ctx;
  auto const first = random_keep(random, view, true);
  kvevict::compacted<std::int32_t> done;
  kvevict::compact(ctx, view, first, kvevict::compaction::stable, done);
  std::vector<std::int32_t> const lengths(done.lengths().begin(), done.lengths().end());
  view.lengths = {done.lengths().data, view.heads(), 1};
  auto const second = random_keep(random, view, true);
  auto const before = r->cache.snapshot();
  for (std::int64_t n = 0;; ++n) {
    failing_allocation const nth(n);
    try {
      kvevict::host fresh;
      kvevict::compact(fresh, view, second, kvevict::compaction::stable, done);
      break;
    } catch (std::bad_alloc const&) {
    }
    for (std::size_t i = 0; i < lengths.size(); ++i) REQUIRE(view.lengths.data[i] == lengths[i]);
    REQUIRE(r->cache.snapshot() == before);
  }
  for (std::int64_t i = 0; i < second.rows(); ++i) CHECK(done.lengths()[i] == second.row(i).size);
}

}  // namespace allocation_failure_test
