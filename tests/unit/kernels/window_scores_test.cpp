// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/column_sums.hpp>
#include <kvevict/kernels/window_scores.hpp>
#include <kvevict/threads.hpp>

#include <algorithm>
#include <cmath>

#include "support/allocations.hpp"
#include "support/attention_case.hpp"
#include "support/catch.hpp"
#include "support/reference_scores.hpp"

namespace kernels_window_scores_test {

using namespace kvevict;
using layouts::layout;
using reference::attention_case;
using reference::attention_shape;

namespace {

/// What the kernel must give for row r.
std::vector<double> expected(attention_case const& a, std::size_t r, window_options const& o, double more = 1) {
  row const& in = a.rows[r];
  bool const causal = o.place == row_place::in_cache;
  std::int32_t const end = a.query_tokens(in.sequence);
  std::int32_t const W = std::max(0, std::min({o.rows, end, causal ? in.tokens : end}));
  std::vector<double> gains;
  for (std::int32_t i = end - W; i < end && o.weights == weighting::step_gain; ++i) {
    double const position = in.tokens - a.query_tokens(in.sequence) + i + 1;
    gains.push_back(position <= in.budget
                        ? double{o.min_gain}
                        : std::max(double{o.min_gain}, std::sqrt(2 * std::log(position / in.budget))));
  }
  std::vector<std::vector<double>> heads;
  for (std::int32_t g = 0; g < a.shape.group; ++g) {
    heads.push_back(a.summed(in.sequence, in.head * a.shape.group + g, end - W, end, causal, more, gains));
    if (o.reduce == row_reduce::mean && W > 0)
      for (double& x : heads.back()) x /= W;
    if (o.pool_before_group.width > 1) {
      std::vector<double> const front(heads.back().begin(), heads.back().begin() + in.last);
      auto const kind = o.pool_before_group.kind == pooling::max ? reference::pool::max : reference::pool::average;
      auto const pooled = reference::pooled(front, static_cast<std::size_t>(o.pool_before_group.width), kind);
      std::copy(pooled.begin(), pooled.end(), heads.back().begin());
    }
  }
  return reference::reduced(heads, o.group);
}

void check(attention_case& a, window_options const& o, double tolerance = 1e-5, double more = 1) {
  for (std::size_t r = 0; r < a.rows.size(); ++r) {
    auto const want = expected(a, r, o, more);
    double worst = 0;
    for (std::size_t j = 0; j < want.size(); ++j) {
      double const got = double{a.values[static_cast<std::size_t>(a.begin[r]) + j]};
      worst = std::max(worst, std::isfinite(got) ? std::abs(got - want[j]) / (std::abs(want[j]) + 1e-12) : 1e9);
    }
    CAPTURE(r, a.rows[r].tokens, a.shape.group, a.shape.cache.head_dim);
    CHECK(worst <= tolerance);
  }
}

template <class F> void with_cache(attention_case const& a, layout l, F&& f) {
  layouts::with_layout(l, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    f(cache.view);
  });
}

std::vector<float> scores(attention_case& a, layout l, host& ctx, query_rows const& q, window_options const& o) {
  with_cache(a, l, [&](auto const& view) { kernels::window_scores(ctx, view, q, o, a.out()); });
  return a.values;
}

attention_shape shape_of(std::vector<std::int32_t> lengths, std::int32_t heads, std::int32_t group,
                         std::int32_t head_dim, std::uint64_t seed = 1) {
  attention_shape s;
  s.cache.lengths = std::move(lengths), s.cache.heads = heads, s.cache.head_dim = head_dim;
  s.group = group, s.seed = seed;
  return s;
}

window_options window(std::int32_t rows) { return {rows}; }

}  // namespace

TEST_CASE("window scores are the mean attention of the last rows") {
  host ctx;
  std::uint64_t seed = 1;
  for (std::int32_t const group : {1, 2, 3, 4, 8})
    for (std::int32_t const D : {8, 20, 64, 80}) {
      attention_case a(shape_of({kernels::tile_tokens + 1, 5, 2 * kernels::tile_tokens, 1, kernels::tile_tokens - 1, 0},
                                2, group, D, ++seed));
      for (std::int32_t const W : {1, 4, 7}) {
        scores(a, layout::bnsh, ctx, a.queries(), window(W));
        check(a, window(W));
        scores(a, layout::nhd, ctx, a.queries_with_lse(log_base::e), window(W));
        check(a, window(W));
      }
    }
}

TEST_CASE("the LSE may come in either base, with scale and softcap") {
  host ctx;
  for (float const softcap : {0.0f, 0.5f, 5.0f, 30.0f, 1e3f, 1e8f})
    for (float const scale : {0.0f, 0.25f}) {
      auto s = shape_of({70, 33}, 2, 2, 32);
      s.scale = scale, s.softcap = softcap;
      attention_case a(s);
      for (auto const base : {log_base::e, log_base::two}) {
        scores(a, layout::hnd, ctx, a.queries_with_lse(base), window(8));
        check(a, window(8));
      }
      scores(a, layout::hnd, ctx, a.queries(), window(8));
      check(a, window(8));
    }
}

TEST_CASE("window scores reduce as they are told") {
  host ctx;
  attention_case a(shape_of({90, 12}, 2, 3, 16));
  for (row& r : a.rows) r.last = std::max(0, r.tokens - 6);
  for (auto const rows : {row_reduce::mean, row_reduce::sum})
    for (auto const group : {group_reduce::mean, group_reduce::max, group_reduce::sum})
      for (pool_options const pool :
           {pool_options{}, pool_options{5, pooling::average}, pool_options{3, pooling::max}}) {
        window_options o = window(6);
        o.reduce = rows, o.group = group, o.pool_before_group = pool;
        scores(a, layout::x_packed, ctx, a.queries(), o);
        check(a, o);
        scores(a, layout::x_packed, ctx, a.queries_with_lse(log_base::two), o);
        check(a, o);
      }
}

TEST_CASE("step gain holds the entropy of a row at the budget") {
  host ctx;
  attention_case a(shape_of({200, 64, 20}, 2, 2, 16));
  for (row& r : a.rows) r.budget = 40;
  for (float const least : {0.0f, 0.5f}) {
    window_options o = window(8);
    o.weights = weighting::step_gain, o.reduce = row_reduce::sum, o.min_gain = least;
    scores(a, layout::bnsh, ctx, a.queries(), o);
    check(a, o);
    scores(a, layout::bnsh, ctx, a.queries_with_lse(log_base::e), o);  // its own softmax: the engine's LSE is not read
    check(a, o);
    a.shape.softcap = 4;
    scores(a, layout::bnsh, ctx, a.queries(), o);
    check(a, o);
    a.shape.softcap = 0;
  }
}

TEST_CASE("positions decide the gain and what a row sees when they are given") {
  host ctx;
  attention_case a(shape_of({30}, 1, 1, 16));
  a.rows[0].budget = 30;
  std::vector<std::int32_t> positions(30, 29);  // i = k: uniform over what each row sees
  query_rows q = a.queries();
  q.positions = positions.data();
  window_options o = window(2);
  o.weights = weighting::step_gain, o.reduce = row_reduce::sum;
  scores(a, layout::bnsh, ctx, q, o);
  CHECK(a.values[0] == Approx(2.0 / 30));
  CHECK(a.values[29] == Approx(2.0 / 30));  // the row above the last one is at its position, and sees it
}

TEST_CASE("the first row beyond the budget has a gain of its own") {
  CHECK(step_gain(30, 30, 0.25f) == 0.25f);
  CHECK(step_gain(31, 30, 0.0f) == Approx(std::sqrt(2 * std::log(31.0 / 30))));
}

TEST_CASE("weights of single rows are those of windows of one row") {
  for (std::int32_t const threads : {1, 3}) {
    kvevict::threads pool(threads);
    host ctx(pool.as_executor(0));
    for (std::int32_t const group : {1, 3, 4})
      for (int option = 0; option < 4; ++option) {
        attention_case a(shape_of({2 * kernels::tile_tokens + 5}, 2, group, 24, 9));
        for (row& r : a.rows) r.budget = 20;
        window_options o = window(7);
        o.reduce = row_reduce::sum;
        if (option == 1) o.weights = weighting::step_gain, o.min_gain = 0.3f;
        if (option == 2) o.group = group_reduce::max;
        query_rows const q = option == 3 ? a.queries_with_lse(log_base::two) : a.queries();
        std::int32_t const N = a.rows[0].tokens;
        score_rows out = a.out();
        out.total_floats = out.begin[out.count()];
        std::vector<float> planes(static_cast<std::size_t>(out.total_floats * o.rows));
        out.values = planes.data();
        with_cache(a, layout::csr, [&](auto const& view) { kernels::window_weights(ctx, view, q, o, out); });
        for (std::int32_t w = 0; w < o.rows; ++w) {  // the cache as it was when that row was the newest
          std::int32_t const newer = o.rows - 1 - w, begin[] = {0, N - newer};
          query_rows one = q;
          one.row_begin = begin;
          for (row& r : a.rows) r.tokens = N - newer;
          window_options last = o;
          last.rows = 1;
          scores(a, layout::csr, ctx, one, last);
          for (std::size_t r = 0; r < a.rows.size(); ++r) {
            float const *want = a.values.data() + a.begin[r], *got = out.plane(w).values + out.begin[r];
            CAPTURE(group, option, w, r);
            auto const alike = [&](float x, float y) {  // a window of one row with an LSE adds up in another order
              return option == 3 ? x == Approx(y).epsilon(1e-5) : x == y;
            };
            CHECK(std::equal(want, want + N - newer, got, alike));
            CHECK(std::all_of(got + N - newer, got + N, [](float x) { return x == 0; }));
          }
          for (row& r : a.rows) r.tokens = N;
        }
      }
  }
}

TEST_CASE("weights of single rows are refused before they are folded") {
  host ctx;
  attention_case a(shape_of({40, 6}, 1, 2, 8));
  std::vector<float> planes(8 * 46);
  score_rows out = a.out();
  out.values = planes.data(), out.total_floats = 46;
  auto const says = [&](query_rows const& q, window_options const& o, char const* part) {
    with_cache(a, layout::hnd, [&](auto const& view) {
      CHECK_THROWS_WITH(kernels::window_weights(ctx, view, q, o, out), Catch::Contains(part));
    });
  };
  says(a.queries(), window(8), "sequence 1 has 6 tokens");
  window_options pooled = window(4);
  pooled.pool.width = 3;
  says(a.queries(), pooled, "not pooled");
  says(a.queries_with_lse(log_base::e, true, 0.1), window(4), "add up to 10");
  a.numbers_of_queries()[static_cast<std::size_t>((40 + 4) * 2 * 8 + 3)] = std::nanf("");  // the second newest row's
  a.store_queries();
  says(a.queries(), window(4), "sequence 1, head 0 in layer 0 is NaN");
}

TEST_CASE("rows after the cache see all of it") {
  host ctx;
  auto s = shape_of({60, 9}, 2, 2, 16);
  s.query_tokens = {12, 12};
  attention_case a(s);
  window_options o = window(12);
  o.place = row_place::behind_cache;
  scores(a, layout::pointers, ctx, a.queries_with_lse(log_base::e, false, 1.7), o);
  check(a, o, 1e-5, 1.7);
  CHECK_THROWS_WITH(kernels::window_scores(ctx, layer_view<>{}, a.queries(), o, a.out()), Catch::Contains("LSE"));
}

TEST_CASE("heads may have different lengths") {
  host ctx;
  auto s = shape_of({60, 40}, 3, 2, 16);
  s.cache.head_lengths = {60, 30, 59, 1, 40, 17};
  s.query_tokens = {60, 40};
  attention_case a(s);
  window_options const o = window(5);
  for (layout const l : {layout::bnsh, layout::head_blocks, layout::head_pages}) {
    scores(a, l, ctx, a.queries(), o);
    check(a, o);
  }
}

TEST_CASE("types of keys and queries") {
  host ctx;
  for (dtype const k : {dtype::f32, dtype::f16, dtype::bf16})
    for (dtype const q : {dtype::f32, dtype::f16, dtype::bf16}) {
      auto s = shape_of({75}, 2, 2, 40);
      s.cache.type = k, s.query_type = q;
      attention_case a(s);
      scores(a, layout::nhd, ctx, a.queries(), window(6));
      check(a, window(6));
    }
}

TEST_CASE("no bit of a score depends on layout, page size or threads") {
  threads two(2), five(5);
  host serial, pair(two.as_executor(0)), many(five.as_executor(0));
  for (dtype const type : {dtype::f32, dtype::bf16, dtype::f16})
    for (bool const lse : {false, true}) {
      auto s = shape_of({4 * kernels::tile_tokens + 5, 31}, 2, 3, 24);
      s.cache.type = type;
      attention_case a(s);
      query_rows const q = lse ? a.queries_with_lse(log_base::e) : a.queries();
      auto const first = scores(a, layout::bnsh, serial, q, window(9));
      for (std::int32_t const page : {1, 7, 16, 64})
        for (layout const l : layouts::all) {
          a.shape.cache.page_size = page;
          CAPTURE(page, layouts::name_of(l), lse);
          CHECK(scores(a, l, pair, q, window(9)) == first);
        }
      CHECK(scores(a, layout::bnsh, many, q, window(9)) == first);
    }
}

TEST_CASE("a head too large to keep is computed twice") {
  host ctx;
  auto s = shape_of({4800, 40}, 1, 8, 8);
  s.query_tokens = {256, 40};
  attention_case a(s);
  window_options const o = window(256);
  auto const shape = kernels::window_shape_of(a.queries(), o, a.out(), false);
  REQUIRE(shape.tiles() * kernels::tile_tokens * 256 * 8 * 4 > kernels::kept_weights_bytes);
  scores(a, layout::bnsh, ctx, a.queries(), o);
  for (std::size_t r = 0; r < 2; ++r) {
    double sum = 0;
    for (std::int64_t j = a.begin[r]; j < a.begin[r + 1]; ++j) sum += double{a.values[static_cast<std::size_t>(j)]};
    CHECK(sum == Approx(1.0).epsilon(1e-5));
  }
  auto const twice = a.values;
  scores(a, layout::bnsh, ctx, a.queries_with_lse(log_base::e), o);
  for (std::size_t j = 0; j < twice.size(); ++j) REQUIRE(twice[j] == Approx(a.values[j]).epsilon(2e-5));
}

TEST_CASE("only active rows are scored") {
  host ctx;
  attention_case a(shape_of({60, 60}, 2, 2, 16));
  a.rows[1].active = a.rows[2].active = false;
  scores(a, layout::bnsh, ctx, a.queries(), window(4));
  for (std::int64_t j = a.begin[1]; j < a.begin[3]; ++j) CHECK(a.values[static_cast<std::size_t>(j)] == -7.0f);
  CHECK(a.values[0] != -7.0f);
}

TEST_CASE("a key that is not finite gives scores that are not") {
  host ctx;
  attention_case a(shape_of({60}, 1, 1, 16));
  for (float const bad : {std::nanf(""), INFINITY, -INFINITY})
    layouts::with_layout(layout::bnsh, a.shape.cache, [&](auto& cache) {
      a.fill(cache);
      cache.set(*cache.view.find(role::k), 0, 0, 7, 3, bad);
      kernels::window_scores(ctx, cache.view, a.queries(), window(4), a.out());
      CHECK(!std::isfinite(a.values[7]));
    });
}

TEST_CASE("a row whose logits are all -inf has no softmax") {
  host ctx;
  attention_case a(shape_of({60}, 1, 2, 16));
  for (float& x : a.numbers_of_queries()) x = std::abs(x) + 0.1f;
  a.store_queries();
  float const sinks[] = {1, 2};
  for (bool const with_sinks : {false, true})
    layouts::with_layout(layout::bnsh, a.shape.cache, [&](auto& cache) {
      a.fill(cache);
      for (std::int32_t t = 0; t < 60; ++t) cache.set(*cache.view.find(role::k), 0, 0, t, 3, -INFINITY);
      query_rows q = a.queries();
      if (with_sinks) q.sink_logits = sinks;
      auto const scores_none = [&](auto const& call) {
        call(a.out());
        for (float const x : a.values) CHECK(std::isnan(x));
      };
      for (std::int32_t const rows : {1, 4, 40})
        for (weighting const by : {weighting::softmax, weighting::step_gain}) {
          window_options o = window(rows);
          o.weights = by;
          scores_none([&](score_rows const& out) { kernels::window_scores(ctx, cache.view, q, o, out); });
        }
      scores_none([&](score_rows const& out) { kernels::column_sums(ctx, cache.view, q, group_reduce::mean, out); });
      cache.set(*cache.view.find(role::k), 0, 0, 7, 3, 0);  // its weight is 1
      kernels::window_scores(ctx, cache.view, q, window(4), a.out());
      CHECK((with_sinks ? a.values[7] > 0 && a.values[7] < 1 : std::abs(a.values[7] - 1) < 1e-5f));
      CHECK(a.values[8] == 0);
    });
}

TEST_CASE("one row may look at a scattered cache") {
  host ctx;
  attention_case a(shape_of({60}, 2, 2, 16));
  auto const ascending = scores(a, layout::hnd, ctx, a.queries(), window(1));
  std::vector<std::int32_t> const positions(120, 3);
  with_cache(a, layout::hnd, [&](auto const& view) {
    score_rows out = a.out();
    out.positions = positions.data();
    kernels::window_scores(ctx, view, a.queries(), window(1), out);
    CHECK(a.values == ascending);
    CHECK_THROWS_WITH(kernels::window_scores(ctx, view, a.queries(), window(2), out), Catch::Contains("scattered"));
  });
}

TEST_CASE("window scores refuse what cannot be right") {
  host ctx;
  auto s = shape_of({60, 20}, 2, 2, 16);
  s.query_tokens = {60, 7};
  attention_case a(s);
  with_cache(a, layout::hnd, [&](auto const& view) {
    CHECK_THROWS_WITH(kernels::window_scores(ctx, view, a.queries(), window(8), a.out()),
                      Catch::Contains("sequence 1 provides 7 query rows and the window needs 8"));
    window_options even = window(4);
    even.pool_before_group.width = 4;
    CHECK_THROWS_WITH(kernels::window_scores(ctx, view, a.queries(), even, a.out()), Catch::Contains("odd width"));
    CHECK_THROWS_AS(kernels::window_scores(ctx, view, a.queries(), window(0), a.out()), contract_violation);
    query_rows wrong = a.queries_with_lse(log_base::two);
    wrong.base = log_base::e;
    wrong.scale = 1;
    CHECK_THROWS_WITH(kernels::window_scores(ctx, view, wrong, window(4), a.out()),
                      Catch::Contains("scale") && Catch::Contains("log_base"));
    query_rows const q = a.queries_with_lse(log_base::e, true, 1 / 1.0005);
    CHECK_NOTHROW(kernels::window_scores(ctx, view, q, window(4), a.out()));
  });
}

TEST_CASE("window scores allocate once and stay within their scratch bound") {
  threads two(2);
  for (auto const& pool : {pool_options{}, pool_options{3, pooling::max}})
    for (bool const lse : {false, true}) {
      host ctx(two.as_executor(0));
      attention_case a(shape_of({300, 90, 7}, 2, 3, 24));
      query_rows const q = lse ? a.queries_with_lse(log_base::e) : a.queries();
      window_options o = window(8);
      o.pool_before_group = pool;
      with_cache(a, layout::nhd, [&](auto const& view) {
        kernels::window_scores(ctx, view, q, o, a.out());
        auto const before = allocations();
        for (int i = 0; i < 20; ++i) kernels::window_scores(ctx, view, q, o, a.out());
        CHECK(allocations() == before);
        auto const bound = kernels::window_scores_bytes(6, kernels::window_shape_of(q, o, a.out(), false), 2);
        CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= bound);
      });
    }
}

}  // namespace kernels_window_scores_test
