// SPDX-License-Identifier: Apache-2.0
// Rows of evidence where engines have them: what is planned and observed is what packed rows give, bit for bit.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/placed_rows.hpp"
#include "support/stack.hpp"

namespace policy_placed_rows_test {

using namespace support;
using Catch::Contains;

namespace {

kvevict::budget const twenty{.tokens_per_head = 20};
auto const as_it_is = [](auto const& x) { return x.data(); };
constexpr auto snapkv = kvevict::presets::snapkv({.window = 4, .pool = 3});
constexpr auto h2o = kvevict::presets::h2o();
constexpr auto ahakv = kvevict::presets::ahakv({.recent = 4});

struct room {
  batch in = random_batch(95, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30, 35}});
  std::int32_t floats;
  kvevict::host ctx;

  explicit room(std::int32_t state_floats) : floats(state_floats) {}
  /// What f(view) has done to the state.
  template <class F> std::vector<std::vector<std::byte>> after(F f) {
    std::vector<std::vector<std::byte>> out;
    auto shape = cache_shape_of(in);
    shape.state_floats = floats;
    with_cache(layouts::layout::head_pages, shape, in, [&](auto& cache) {
      cache.fill(kvevict::role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
      f(cache.view);
      out = cache.snapshot();
    });
    return out;
  }
  template <class Policy, class Rows> auto scores(Policy const& p, Rows const& rows) {
    std::vector<float> out;
    after([&](auto const& view) { kvevict::scores(ctx, p, kvevict::prompt(view, rows), twenty, out); });
    return out;
  }
  template <class Policy, class Rows> auto observed(Policy const& p, Rows const& rows) {
    return after([&](auto const& view) { kvevict::observe(ctx, p, kvevict::step(view, rows), twenty); });
  }
};

kvevict::query_rows with_lse(attention const& a) {
  auto q = a.queries();
  q.lse = a.lse.data(), q.lse_token_stride = a.lse_stride(), q.lse_head_stride = 1;
  return q;
}

}  // namespace

TEST_CASE("placed rows: plans and states are those of packed rows") {
  room one(1), four(4);
  auto const whole = whole_cache(one.in);
  attention const last = rows_of(one.in, whole, {33, 24, 31}, one.in.N),  // 7, 6 and 4 rows
      some = rows_of(one.in, whole, {39, 30, 31}, one.in.N);              // one, none, four
  std::vector<placing> const all = placings();
  REQUIRE(all.size() == 9);
  for (placing const& p : all) {
    CAPTURE(static_cast<int>(p.how), p.heads_first, p.lse_heads_first);
    placed_rows const in(last, p), few(some, p);
    CHECK(one.scores(snapkv, in.queries(as_it_is)) == one.scores(snapkv, last.queries()));
    CHECK(one.scores(snapkv, in.with_lse(as_it_is)) == one.scores(snapkv, with_lse(last)));
    CHECK(one.scores(snapkv, in.rows(as_it_is)) == one.scores(snapkv, last.rows()));
    CHECK(one.scores(ahakv, in.queries(as_it_is)) == one.scores(ahakv, last.queries()));
    CHECK(one.scores(ahakv, in.rows(as_it_is)) == one.scores(ahakv, last.rows()));
    CHECK((one.observed(h2o, few.queries(as_it_is)) == one.observed(h2o, some.queries())));
    CHECK((one.observed(h2o, few.with_lse(as_it_is)) == one.observed(h2o, with_lse(some))));
    CHECK((one.observed(h2o, few.rows(as_it_is)) == one.observed(h2o, some.rows())));
    CHECK((four.observed(ahakv, few.queries(as_it_is)) == four.observed(ahakv, some.queries())));
    CHECK((four.observed(ahakv, few.rows(as_it_is)) == four.observed(ahakv, some.rows())));
  }
}

TEST_CASE("placed rows: whole prompts, padded") {
  room one(1);
  attention const all = all_rows(one.in);
  for (placing const& p : placings()) {
    CAPTURE(static_cast<int>(p.how), p.heads_first, p.lse_heads_first);
    placed_rows const in(all, p);
    CHECK(one.scores(h2o, in.queries(as_it_is)) == one.scores(h2o, all.queries()));
    CHECK(one.scores(h2o, in.with_lse(as_it_is)) == one.scores(h2o, with_lse(all)));
    CHECK(one.scores(h2o, in.rows(as_it_is)) == one.scores(h2o, all.rows()));
  }
}

TEST_CASE("placed rows: a stack's rows by a layer stride, or in a tensor of each layer") {
  batch const in = random_batch(96, {.Hq = 4, .H = 2, .D = 8, .N = {30, 26, 30, 26, 30, 26}, .future = 0});
  attention const last = rows_of(in, whole_cache(in), {25, 22, 25, 22, 25, 22}, in.N);
  stack layers(in, 3, placed::layers_apart, true);
  kvevict::host ctx;
  auto const scores = [&](auto const& policy, auto const& rows) {
    std::vector<float> out;
    kvevict::scores(ctx, policy, kvevict::prompt(layers.whole(), rows), {.tokens_per_head = 12, .layer_count = 3}, out);
    return out;
  };
  auto every = placings();
  every.push_back({});
  for (placing p : every)
    for (bool const own : {false, true}) {
      CAPTURE(static_cast<int>(p.how), p.heads_first, own);
      p.layers = 3, p.own_tensors = own;
      placed_rows const of(last, p);
      CHECK(scores(snapkv, of.queries(as_it_is)) == scores(snapkv, last.queries()));
      CHECK(scores(snapkv, of.with_lse(as_it_is)) == scores(snapkv, with_lse(last)));
      CHECK(scores(snapkv, of.rows(as_it_is)) == scores(snapkv, last.rows()));
      CHECK(scores(ahakv, of.rows(as_it_is)) == scores(ahakv, last.rows()));
    }
}

TEST_CASE("placed rows: hidden states, padded") {
  room one(1);
  gate_case const gate({.N = {40, 30, 35}, .H = 2});
  auto const policy = kvevict::presets::attention_gate(gate.weights()).with(kvevict::protect{2, 4});
  hidden const all = gate.states({0, 0, 0}, {40, 30, 35});
  auto const packed = all.rows();
  std::int64_t const width = packed.token_stride, T = 44;
  std::vector<float> padded(static_cast<std::size_t>(3 * T * width), std::numeric_limits<float>::quiet_NaN());
  std::vector<std::int32_t> const count{40, 30, 35}, left{4, 14, 9};
  for (bool const on_left : {false, true}) {
    for (std::size_t b = 0; b < 3; ++b)
      std::copy_n(static_cast<float const*>(packed.data) + packed.row_begin[b] * width, count[b] * width,
                  padded.begin() + (static_cast<std::int64_t>(b) * T + (on_left ? left[b] : 0)) * width);
    kvevict::feature_rows x = packed;
    x.data = padded.data(), x.row_begin = on_left ? left.data() : nullptr, x.row_count = count.data(),
    x.seq_stride = T * width;
    auto const see = [&](auto const& rows) {
      return one.after([&](auto const& view) {
        kvevict::observe(one.ctx, policy, kvevict::prompt(view, rows), {.tokens_per_head = kvevict::budget::no_cap});
      });
    };
    CHECK((see(x) == see(packed)));
    CHECK(one.scores(policy, x) == one.scores(policy, packed));
  }
}

TEST_CASE("placed rows: rows that reach into padding, or say two things, are refused") {
  room one(1);
  attention const last = last_rows(one.in, 5);
  auto const refuses = [&](auto const& rows, std::string const& what, std::string const& remedy) {
    CHECK_THROWS_WITH(one.scores(snapkv, rows), Contains(what) && Contains(remedy));
  };
  for (bool const heads : {false, true}) {
    placed_rows const in(last, {placing::kind::right, heads, false});
    auto q = in.queries(as_it_is);
    std::vector<std::int32_t> const more{5, 9, 5}, begin{0, 0, 4}, negative{5, -1, 5};
    q.row_count = more.data();
    refuses(q, "sequence 1 provides 9 rows from row 0 on, which reach behind its part", "no padding");
    auto w = in.rows(as_it_is);
    w.row_begin = begin.data();
    refuses(w, "sequence 2 provides 5 rows from row 4 on, which reach behind its part", "row_begin (B)");
    w.row_count = negative.data();
    refuses(w, "sequence 1 provides -1 rows", "none negative");
    q = in.queries(as_it_is), q.seq_stride = 0;
    refuses(q, "all sequences would have the same rows", "say where");
    q = in.queries(as_it_is), q.row_count = nullptr, q.row_begin = last.begin.data();
    refuses(q, "seq_stride of", "give it with row_count");
    q = in.queries(as_it_is), q.sequences = 2;
    refuses(q, "rows of 2 sequences a layer for a view of 3", "sequences = S");
    q = in.queries(as_it_is), q.layer_stride = 100;
    refuses(q, "a layer_stride of 100", "both, or neither");
  }
}

}  // namespace policy_placed_rows_test
