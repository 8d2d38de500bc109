// SPDX-License-Identifier: Apache-2.0
// The host on threads, for the thread sanitizer: no verb races, and each does what it does alone.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>

#include <kvevict/threads.hpp>

#include "support/catch.hpp"
#include "support/verbs.hpp"

namespace races_test {

using namespace support;

namespace {

/// A call on threads, some times over; whether each does what a serial one does.
bool repeats(kvevict::threads& pool, verb const& v, int times) {
  bytes const before = v.owned();
  kvevict::host alone, ctx(pool.as_executor(0));
  v.call(alone);
  bytes const result = v.result(), after = v.owned();
  bool right = true;
  for (int i = 0; i < times; ++i) {
    v.restore(before);
    v.call(ctx);
    right = right && v.owned() == after && v.result() == result;
  }
  v.restore(before);
  return right;
}

/// KVEVICT_THREADS_SEED, or a number of today.
unsigned long long todays_seed() {
  char const* const given = std::getenv("KVEVICT_THREADS_SEED");
  auto const seed = given != nullptr ? std::strtoull(given, nullptr, 10)
                                     : static_cast<unsigned long long>(std::time(nullptr)) / 86400;
  std::printf("threads: KVEVICT_THREADS_SEED=%llu\n", seed);
  return seed;
}

}  // namespace

TEST_CASE("threads: every verb on four threads does what it does alone") {
  kvevict::threads four(4);
  auto const check = [&](verb const& v) {
    CAPTURE(v.name);
    CHECK(repeats(four, v, 2));
  };
  verbs::plans(check), verbs::observations(check), verbs::applications(check);
}

// Of layouts, page sizes, types and forms of evidence: every layout, beside others on other days, so that each pair has
// its turn within nine.
TEST_CASE("threads: every preset on four threads keeps what it keeps alone, in every layout") {
  kvevict::threads four(4);
  kvevict::host alone, together(four.as_executor(0));
  kvevict::budget const ask{.tokens_per_head = 24, .layer = 1, .layer_count = 3};
  batch const in = random_batch(17, {.Hq = 4, .H = 2, .D = 8, .N = {60, 20, 0, 41}});
  constexpr std::int32_t pages[] = {1, 16, 64};
  constexpr kvevict::dtype types[] = {kvevict::dtype::f32, kvevict::dtype::f16, kvevict::dtype::bf16};
  constexpr form forms[] = {form::queries, form::lse, form::weights};
  std::uint64_t turn = todays_seed();
  for (layouts::layout const l : layouts::all) {
    auto shape = cache_shape_of(in);
    shape.page_size = pages[turn % 3], shape.type = types[turn / 3 % 3];
    hand_in rows(in);
    rows.as = forms[(turn + turn / 3) % 3];
    if (shape.type != kvevict::dtype::f32 && rows.as == form::lse) rows.as = form::queries;  // an LSE of exact keys
    ++turn;
    with_cache(l, shape, in, [&](auto& cache) {
      for (any_preset const& p : presets()) {
        CAPTURE(p.name, cache.name(), shape.page_size, static_cast<int>(shape.type), static_cast<int>(rows.as));
        CHECK(p.plan(together, for_any(p, cache.view), rows, ask).tokens ==
              p.plan(alone, for_any(p, cache.view), rows, ask).tokens);
      }
    });
  }
}

TEST_CASE("threads: two contexts in two threads on one pool do what they do alone") {
  kvevict::threads pool(3);
  bool right[2] = {true, true};
  auto const all = [&](bool& ok) {
    verbs::observations([&](verb const& v) { ok = repeats(pool, v, 3) && ok; });
    verbs::applications([&](verb const& v) { ok = repeats(pool, v, 3) && ok; });
  };
  presets();
  std::thread other([&] { all(right[1]); });
  all(right[0]);
  other.join();
  CHECK(right[0]);
  CHECK(right[1]);
}

}  // namespace races_test
