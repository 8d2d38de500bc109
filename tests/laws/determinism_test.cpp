// SPDX-License-Identifier: Apache-2.0
// The same bits on every executor, page size and layout.
#include <cstring>
#include <map>
#include <thread>

#include <kvevict/threads.hpp>

#include "support/any_preset.hpp"
#include "support/catch.hpp"

namespace determinism_test {

using namespace support;

namespace {

constexpr kvevict::budget ask{.tokens_per_head = 40, .layer = 1, .layer_count = 3};

batch const& input() {
  static batch const in = random_batch(41, {.Hq = 6, .H = 2, .D = 8, .N = {280, 77, 5, 0}});
  return in;
}
hand_in const& input_rows() {
  static hand_in const rows(input());
  return rows;
}

struct outcome {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> row_begin;
  std::vector<float> scores;

  bool operator==(outcome const& o) const {
    return tokens == o.tokens && row_begin == o.row_begin && scores.size() == o.scores.size() &&
           std::memcmp(scores.data(), o.scores.data(), scores.size() * sizeof(float)) == 0;
  }
};

outcome run(any_preset const& p, kvevict::host& ctx, any_view const& view, form as) {
  hand_in rows = input_rows();
  rows.as = as;
  auto const keep = p.plan(ctx, view, rows, ask);
  outcome out{keep.tokens, keep.row_begin, {}};
  p.scores(ctx, view, rows, ask, out.scores);
  return out;
}

outcome const& baseline(any_preset const& p, form as) {
  static std::map<std::pair<std::string, form>, outcome> known;
  auto const key = std::pair(p.name, as);
  if (!known.contains(key))
    with_cache(input(), [&](auto& cache) {
      kvevict::host ctx;
      known[key] = run(p, ctx, cache.view, as);
    });
  return known[key];
}

/// An engine's own pool: a thread per task, started in descending order.
kvevict::executor own_pool(std::int32_t concurrency) {
  kvevict::executor e;
  e.concurrency = concurrency;
  e.least_work = 0;  // small jobs, too
  e.run = [](void*, std::int64_t count, kvevict::executor::task_function task, void* state) {
    std::vector<std::thread> threads;
    for (std::int64_t i = count - 1; i >= 0; --i) threads.emplace_back(task, state, i);
    for (auto& t : threads) t.join();
  };
  return e;
}

}  // namespace

TEST_CASE("laws: the same bits on every executor") {
  kvevict::threads two(2), five(5);
  struct {
    char const* name;
    kvevict::executor executor;
  } const executors[] = {{"serial", {}},
                         {"threads(2)", two.as_executor(0)},
                         {"threads(5)", five.as_executor(0)},
                         {"own pool of 3", own_pool(3)}};
  for (auto const& e : executors)
    for (any_preset const& p : presets())
      with_cache(input(), [&](auto& cache) {
        kvevict::host ctx(e.executor);  // one for all forms: its scratch has been used before
        for (form const as : {form::queries, form::lse, form::weights}) {
          CAPTURE(p.name, e.name, static_cast<int>(as), input().seed);
          CHECK(run(p, ctx, cache.view, as) == baseline(p, as));
        }
      });
}

TEST_CASE("laws: the same bits in every layout and for every page size, paged equals dense") {
  kvevict::threads pool(3);
  kvevict::host serial, threaded(pool.as_executor(0));
  for (layouts::layout const l : layouts::all)
    for (std::int32_t const page : {1, 16, 64, 256}) {
      // pages of their own
      if (page != 16 &&
          (l == layouts::layout::token_pool || l == layouts::layout::bnsh || l == layouts::layout::transposed_v))
        continue;
      auto shape = cache_shape_of(input());
      shape.page_size = page;
      with_cache(l, shape, input(), [&](auto& cache) {
        for (any_preset const& p : presets()) {
          CAPTURE(p.name, cache.name(), page, input().seed);
          CHECK(run(p, serial, for_any(p, cache.view), form::queries) == baseline(p, form::queries));
          CHECK(run(p, threaded, for_any(p, cache.view), form::lse) == baseline(p, form::lse));
        }
      });
    }
}

TEST_CASE("laws: a batch is its sequences, one by one") {
  for (any_preset const& p : presets()) {
    if (p.name == "random") continue;  // it hashes the index of the sequence
    auto const& all = baseline(p, form::queries);
    for (std::size_t b = 0; b < input().B(); ++b) {
      batch one = input();
      one.N = {input().N[b]}, one.layers = {input().layers[b]};
      with_cache(one, [&](auto& cache) {
        CAPTURE(p.name, b);
        kvevict::host ctx;
        auto const keep = p.plan(ctx, cache.view, hand_in(one), ask);
        std::vector<std::int32_t> const theirs(all.tokens.begin() + all.row_begin[2 * b],
                                               all.tokens.begin() + all.row_begin[2 * b + 2]);
        CHECK(keep.tokens == theirs);
      });
    }
  }
}

}  // namespace determinism_test
