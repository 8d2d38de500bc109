// SPDX-License-Identifier: Apache-2.0
// Decoding against brute force that replays every eviction.
#include <cmath>
#include <numeric>

#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/attention_gate.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/keydiff.hpp>
#include <kvevict/presets/lagkv.hpp>
#include <kvevict/presets/snapkv.hpp>

#include "support/catch.hpp"
#include "support/decoder.hpp"
#include "support/gate_case.hpp"
#include "support/shared_prefix.hpp"

namespace decode_test {

using namespace support;

namespace {

constexpr std::size_t N = 26, steps = 30;
constexpr std::int32_t budget = 16, keep_recent = 6, ring = 8;

batch input(std::uint64_t seed, std::size_t future = steps) {
  return random_batch(seed, {.Hq = 4, .H = 2, .D = 8, .N = {N, N}, .future = future}, 1.0);
}

char const* name_of(form f) {
  return f == form::queries ? "queries" : f == form::lse ? "queries and LSE" : "softmax rows";
}
char const* name_of(applying a) {
  return a == applying::stable ? "stable" : a == applying::fill_holes ? "fill_holes" : "in place";
}

/// The same tokens in the cache, and the same scores where the policy ranks its state.
void check_row(std::vector<slot_state> const& row, reference::head_cache const& expected, bool scores) {
  REQUIRE(row.size() == expected.positions.size());
  for (std::size_t n = 0; n < row.size(); ++n) {
    REQUIRE(row[n].position == expected.positions[n]);
    if (scores) REQUIRE(row[n].state[0] == Approx(expected.scores[n]).epsilon(1e-5).margin(1e-6));
  }
}

decode_setting const settings[] = {
    {budget, 0, form::queries, applying::stable},
    {budget, 0, form::lse, applying::stable},
    {budget, 0, form::weights, applying::stable},
    {budget, 7, form::lse, applying::stable},
    {budget, 0, form::queries, applying::stable, layouts::layout::nhd},
    {budget, 3, form::queries, applying::stable, layouts::layout::pointers},
    {budget, 0, form::lse, applying::fill_holes},
    {budget, 5, form::weights, applying::fill_holes},
    {budget, 0, form::queries, applying::in_place},
    {budget, 0, form::lse, applying::in_place, layouts::layout::x_packed},
    {budget, 0, form::weights, applying::in_place},
};

}  // namespace

TEST_CASE("laws: the H2O loop equals its replay") {
  batch const in = input(71);
  auto const policy = kvevict::presets::h2o({.recent = keep_recent});
  for (decode_setting const& s : settings) {
    std::vector<reference::decode_trace> traces;
    for (auto const& l : in.layers)
      traces.push_back(reference::h2o_replay(l, N,
                                             {static_cast<std::size_t>(s.budget), static_cast<std::size_t>(keep_recent),
                                              static_cast<std::size_t>(s.slack)}));
    with_decoder(policy, in, s, [&](auto& engine, auto& cache) {
      engine.run([](std::size_t) {},
                 [&](std::size_t step) {
                   for (std::size_t b = 0; b < in.B(); ++b)
                     for (std::size_t h = 0; h < in.H; ++h) {
                       CAPTURE(in.seed, name_of(s.as), name_of(s.how), cache.name(), s.slack, step, b, h);
                       check_row(engine.row(b, h), traces[b][step][h], true);
                     }
                 });
    });
  }
}

TEST_CASE("laws: the AhaKV loop equals its replay, the prior is pooled over the slots of the cache") {
  batch const in = input(72);
  for (std::int32_t const value_pool : {5, 1}) {
    auto const policy = kvevict::presets::ahakv({.recent = ring, .value_pool = value_pool});
    reference::ahakv_options o;
    o.recent = static_cast<std::size_t>(ring), o.value_pool = static_cast<std::size_t>(value_pool);
    for (decode_setting const& s : settings) {
      if (value_pool != 1 && s.how != applying::stable) continue;  // pooling refuses rows that are no longer in order
      std::vector<reference::decode_trace> traces;
      for (auto const& l : in.layers)
        traces.push_back(reference::ahakv_replay(
            l, N,
            {static_cast<std::size_t>(s.budget), static_cast<std::size_t>(ring), static_cast<std::size_t>(s.slack)}, o,
            reference::prior_of_cache(l, o)));
      with_decoder(policy, in, s, [&](auto& engine, auto& cache) {
        engine.run([](std::size_t) {},
                   [&](std::size_t step) {
                     for (std::size_t b = 0; b < in.B(); ++b)
                       for (std::size_t h = 0; h < in.H; ++h) {
                         CAPTURE(in.seed, name_of(s.as), name_of(s.how), cache.name(), s.slack, value_pool, step, b, h);
                         check_row(engine.row(b, h), traces[b][step][h], false);
                       }
                   });
      });
    }
  }
}

TEST_CASE("laws: AhaKV's scores while decoding equal the replay's") {
  batch const in = input(73);
  reference::ahakv_options o;
  o.recent = static_cast<std::size_t>(ring);
  for (form const as : {form::queries, form::weights}) {
    decode_setting const s{budget, 0, as};
    std::vector<reference::decode_trace> traces;
    for (auto const& l : in.layers)
      traces.push_back(reference::ahakv_replay(l, N,
                                               {static_cast<std::size_t>(budget), static_cast<std::size_t>(ring), 0}, o,
                                               reference::prior_of_cache(l, o)));
    with_decoder(kvevict::presets::ahakv({.recent = ring}), in, s, [&](auto& engine, auto& cache) {
      std::vector<float> scores;
      slot_positions at;
      engine.run([&](std::size_t) { scores = engine.scores(), at = engine.positions(); },
                 [&](std::size_t step) {
                   std::size_t begin = 0;
                   for (std::size_t b = 0; b < in.B(); ++b)
                     for (std::size_t h = 0; h < in.H; begin += at[b][h].size(), ++h) {
                       auto const& expected = traces[b][step][h];
                       for (std::size_t n = 0; n + static_cast<std::size_t>(ring) < expected.positions.size(); ++n) {
                         auto const slot = static_cast<std::size_t>(
                             std::find(at[b][h].begin(), at[b][h].end(), expected.positions[n]) - at[b][h].begin());
                         CAPTURE(in.seed, cache.name(), name_of(as), step, b, h, n);
                         REQUIRE(scores[begin + slot] == Approx(expected.scores[n]).epsilon(2e-5));
                       }
                     }
                 });
    });
  }
}

TEST_CASE("laws: ring rows sum to 1 when they are written, and all to r until the first eviction") {
  batch const in = input(74, 12);
  for (form const as : {form::queries, form::lse, form::weights})
    for (std::int32_t const b : {budget, 1000}) {
      decode_setting const s{b, 0, as};
      with_decoder(kvevict::presets::ahakv({.recent = ring}), in, s, [&](auto& engine, auto&) {
        engine.run(
            [&](std::size_t step) {
              for (std::size_t q = 0; q < in.B(); ++q)
                for (std::size_t h = 0; h < in.H; ++h) {
                  std::vector<double> columns(static_cast<std::size_t>(ring), 0.0);
                  for (auto const& slot : engine.row(q, h))
                    for (std::size_t c = 0; c < columns.size(); ++c) columns[c] += slot.state[c];
                  CAPTURE(in.seed, name_of(as), b, step, q, h);
                  CHECK(columns[(N + step - 1) % static_cast<std::size_t>(ring)] == Approx(1).epsilon(1e-5));
                  if (step == 0 || b == 1000)
                    CHECK(std::accumulate(columns.begin(), columns.end(), 0.0) == Approx(ring).epsilon(1e-5));
                }
            },
            [](std::size_t) {});
      });
    }
}

TEST_CASE("laws: a prompt observed at once, in chunks and step by step gives the same sums") {
  batch const in = input(75, 0);
  for (form const as : {form::queries, form::lse, form::weights}) {
    std::vector<std::vector<slot_state>> whole;
    for (std::size_t const chunk : {N, std::size_t{7}, std::size_t{1}})
      with_decoder(kvevict::presets::h2o(), in, {1000, 0, as}, [&](auto& engine, auto& cache) {
        for (std::size_t from = 0; from < N; from += chunk) {
          std::size_t const to = std::min(from + chunk, N);
          std::fill(cache.lengths().begin(), cache.lengths().end(), int32(to));
          engine.observe(from, to);
        }
        for (std::size_t r = 0; r < in.B() * in.H; ++r) {
          auto const row = engine.row(r / in.H, r % in.H);
          if (chunk == N) {
            whole.push_back(row);
            auto const sums = reference::column_sums(in.layers[r / in.H])[r % in.H];
            for (std::size_t j = 0; j < N; ++j) CHECK(row[j].state[0] == Approx(sums[j]).epsilon(1e-5));
          }
          for (std::size_t j = 0; j < N; ++j) {
            CAPTURE(in.seed, name_of(as), chunk, r, j);
            CHECK(row[j].state[0] == Approx(whole[r][j].state[0]).epsilon(1e-5));
          }
        }
      });
  }
}

TEST_CASE("laws: AhaKV's ring is the same from a prompt at once and in chunks") {
  batch const in = input(76, 0);
  std::vector<std::vector<slot_state>> whole;
  for (std::size_t const chunk : {N, std::size_t{9}, std::size_t{1}})
    with_decoder(kvevict::presets::ahakv({.recent = ring}), in, {budget, 0, form::queries},
                 [&](auto& engine, auto& cache) {
                   for (std::size_t from = 0; from < N; from += chunk) {
                     std::fill(cache.lengths().begin(), cache.lengths().end(), int32(std::min(from + chunk, N)));
                     engine.observe(from, std::min(from + chunk, N));
                   }
                   for (std::size_t r = 0; r < in.B() * in.H; ++r) {
                     auto const row = engine.row(r / in.H, r % in.H);
                     if (chunk == N) whole.push_back(row);
                     for (std::size_t j = 0; j < N; ++j)
                       for (std::size_t c = 0; c < static_cast<std::size_t>(ring); ++c) {
                         CAPTURE(in.seed, chunk, r, j, c);
                         REQUIRE(row[j].state[c] == Approx(whole[r][j].state[c]).epsilon(1e-5).margin(1e-7));
                       }
                   }
                 });
}

TEST_CASE("laws: scattered rows are refused by what needs a tail or neighbours") {
  batch const in = input(77, 6);
  with_decoder(
      kvevict::presets::h2o({.recent = keep_recent}), in, {budget, 0, form::queries, applying::in_place},
      [&](auto& engine, auto& cache) {
        engine.run([](std::size_t) {}, [](std::size_t) {});
        REQUIRE(cache.view.order == kvevict::row_order::scattered);
        kvevict::host ctx;
        auto const before = cache.snapshot();
        hand_in const rows(in);
        CHECK_THROWS_WITH(kvevict::plan(ctx, kvevict::presets::snapkv({.window = 4}),
                                        kvevict::prompt(cache.view, rows.prompt.queries()), {.tokens_per_head = 10}),
                          Catch::Contains("rows are scattered") && Catch::Contains("use stable compaction"));
        CHECK_THROWS_WITH(kvevict::plan(ctx, kvevict::presets::ahakv({.recent = 4}),
                                        kvevict::prompt(cache.view, rows.prompt.queries()), {.tokens_per_head = 10}),
                          Catch::Contains("scattered"));
        CHECK_THROWS_WITH(kvevict::plan(ctx, kvevict::presets::lagkv({.lag = 4}), kvevict::contents(cache.view),
                                        {.tokens_per_head = 10}),
                          Catch::Contains("rows are scattered") && Catch::Contains("use stable compaction"));
        CHECK(kvevict::plan(ctx, kvevict::presets::keydiff(), kvevict::contents(cache.view), {.tokens_per_head = 10})
                  .kept() == 10 * cache.view.rows());
        CHECK(cache.snapshot() == before);
      });
}

TEST_CASE(
    "laws: observe does not write a prefix that sequences share, and gives every other token what it gives without") {
  gate_case const gate({.N = {40, 30}, .H = 2});
  hidden const states = gate.states({0, 0}, {40, 30});
  auto const check = [](auto const& policy, auto const& rows) {
    shared_prefix p(kvevict::state_floats(policy));
    kvevict::host ctx;
    for (auto const& view : {p.apart.view, p.together.view})
      kvevict::observe(ctx, policy, kvevict::step(view, rows(p.in)), {.tokens_per_head = 20});
    p.compare();
  };
  for (std::size_t const count : {1, 3}) {
    attention some;
    auto const queries = [&](batch const& in) { return (some = last_rows(in, count)).queries(); };
    check(kvevict::presets::h2o(), queries);
    check(kvevict::presets::ahakv({.recent = ring}), queries);
  }
  check(kvevict::presets::attention_gate(gate.weights()), [&](batch const&) { return states.rows(); });
}

}  // namespace decode_test
