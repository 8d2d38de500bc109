// SPDX-License-Identifier: Apache-2.0
// Windows of so few query rows that keys are multiplied as they lie.
#include <kvevict/kernels/host.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/presets/tova.hpp>
#include <kvevict/threads.hpp>

#include <algorithm>
#include <cmath>

#include "support/attention_case.hpp"
#include "support/catch.hpp"
#include "support/quantised_case.hpp"

namespace kernels_short_windows_test {

using namespace kvevict;
using layouts::layout;
using reference::attention_case;
using reference::attention_shape;

namespace {

/// Two sequences, one of them with heads that are worked on in more than one turn.
attention_shape shape_of(std::int32_t heads, std::int32_t group, std::int32_t head_dim, std::uint64_t seed) {
  attention_shape s;
  s.cache.lengths = {3 * kernels::tile_tokens + 5, 31}, s.cache.heads = heads, s.cache.head_dim = head_dim;
  s.group = group, s.seed = seed;
  return s;
}

std::vector<float> scores(attention_case& a, layout l, host& ctx, query_rows const& q, std::int32_t rows) {
  layouts::with_layout(l, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    kernels::window_scores(ctx, cache.view, q, window_options{rows, row_reduce::sum, group_reduce::sum}, a.out());
  });
  return a.values;
}

/// The largest distance to sums in double precision.
double error(attention_case const& a, std::int32_t rows) {
  double worst = 0;
  for (std::size_t r = 0; r < a.rows.size(); ++r) {
    row const& in = a.rows[r];
    std::int32_t const end = a.query_tokens(in.sequence);
    std::vector<double> want(static_cast<std::size_t>(in.tokens));
    for (std::int32_t g = 0; g < a.shape.group; ++g) {
      auto const one =
          a.summed(in.sequence, in.head * a.shape.group + g, std::max(0, end - std::min(rows, in.tokens)), end);
      for (std::size_t j = 0; j < want.size(); ++j) want[j] += one[j];
    }
    for (std::size_t j = 0; j < want.size(); ++j) {
      auto const got = static_cast<double>(a.values[static_cast<std::size_t>(a.begin[r]) + j]);
      worst = std::max(worst, std::isfinite(got) ? std::abs(got - want[j]) / (want[j] + 1e-12) : 1e9);
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("few query rows: sums of double precision, the same bits in every layout and on threads") {
  threads three(3);
  host ctx, many(three.as_executor(0));
  struct {
    std::int32_t heads, group, rows, D, tiles = 3;
  } const cases[] = {{2, 4, 1, 64},  {19, 1, 1, 16}, {3, 4, 4, 24},   {5, 3, 5, 8},
                     {1, 16, 1, 40}, {9, 2, 3, 80},  {5, 2, 1, 8, 40}};  // more tiles than heads share at once
  std::uint64_t seed = 3;
  for (auto const& c : cases)
    for (dtype const type : {dtype::f32, dtype::bf16, dtype::f16}) {
      attention_shape s = shape_of(c.heads, c.group, c.D, ++seed);
      s.cache.lengths[0] = c.tiles * kernels::tile_tokens + 5;
      s.query_tokens = {9, 9};
      s.cache.type = s.query_type = type;
      attention_case a(s);
      query_rows const q = a.queries_with_lse(log_base::two);
      auto const first = scores(a, layout::nhd, ctx, q, c.rows);
      CAPTURE(c.heads, c.group, c.rows, c.D, name_of(type));
      CHECK(error(a, c.rows) <= 1e-5);
      for (std::int32_t const page : {1, 7, 16})
        for (layout const l : layouts::all) {
          a.shape.cache.page_size = page;
          CAPTURE(page, layouts::name_of(l));
          CHECK(scores(a, l, page == 7 ? ctx : many, q, c.rows) == first);
        }
    }
}

TEST_CASE("few query rows: a sequence has the bits that it has alone") {
  host ctx;
  attention_shape s = shape_of(6, 2, 24, 5);
  for (std::int32_t const newest : {1, 8, 9}) {  // of nine rows a tile is packed
    s.query_tokens = {newest, 3};
    attention_case a(s);
    query_rows const q = a.queries_with_lse(log_base::e);
    auto const observed = [&] {
      layouts::with_layout(layout::nhd, a.shape.cache, [&](auto& cache) {
        a.fill(cache);
        score_rows out = a.out();
        out.observed = true;
        kernels::window_scores(ctx, cache.view, q, window_options{newest + 3, row_reduce::sum}, out);
      });
      return a.values;
    };
    auto const want = observed();
    for (std::int32_t b = 0; b < 2; ++b) {
      for (row& r : a.rows) r.active = r.sequence == b && r.head != 2;  // one of its heads is missing
      std::fill(a.values.begin(), a.values.end(), -7.0f);
      auto const got = observed();
      for (std::size_t r = 0; r < a.rows.size(); ++r)
        for (std::int64_t j = a.begin[r]; j < a.begin[r + 1]; ++j)
          REQUIRE(got[static_cast<std::size_t>(j)] == (a.rows[r].active ? want[static_cast<std::size_t>(j)] : -7.0f));
      for (row& r : a.rows) r.active = true;
    }
  }
}

TEST_CASE("few query rows: nothing to score, and scratch of calls that bring fewer rows than were planned for") {
  threads eight(8);
  attention_shape s = shape_of(8, 2, 64, 21);
  for (std::int32_t const given : {0, 1, 3, 5}) {
    s.query_tokens = {given, given};
    attention_case a(s);
    query_rows const q = a.queries_with_lse(log_base::e);
    for (row& r : a.rows) r.active = given != 0;
    host ctx(eight.as_executor(0));
    window_options const o{5, row_reduce::sum};
    kvevict::cache_shape const planned{
        .sequences = 2, .q_heads = 16, .kv_heads = 8, .head_dim = 64, .tokens = a.rows[0].tokens};
    layouts::with_layout(layout::nhd, a.shape.cache, [&](auto& cache) {
      a.fill(cache);
      score_rows out = a.out();
      out.observed = true;
      kernels::window_scores(ctx, cache.view, q, o, out);
    });
    CAPTURE(given);
    CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= kernels::window_scores.bytes(ctx, planned, o));
  }
  kvevict::cache_shape const none{.sequences = 1, .q_heads = 4, .kv_heads = 2, .head_dim = 16, .tokens = 0};
  CHECK(kernels::window_scores.bytes(host(), none, window_options{32}) >= 0);
}

TEST_CASE("few query rows: heads of different lengths") {
  host ctx;
  attention_shape s = shape_of(3, 2, 16, 9);
  s.cache.lengths = {60, 40}, s.cache.head_lengths = {60, 30, 59, 1, 40, 17};
  attention_case a(s);
  query_rows const q = a.queries_with_lse(log_base::e);
  for (layout const l : {layout::bnsh, layout::head_blocks, layout::head_pages}) {
    scores(a, l, ctx, q, 5);
    CHECK(error(a, 5) <= 1e-5);
  }
}

TEST_CASE("few query rows: a scattered cache, and only what a window lets a row see") {
  host ctx;
  attention_case a(shape_of(3, 2, 24, 11));
  query_rows q = a.queries_with_lse(log_base::e);
  auto const ascending = scores(a, layout::hnd, ctx, q, 1);
  std::vector<std::int32_t> const positions(static_cast<std::size_t>(a.begin.back()), 3);
  layouts::with_layout(layout::hnd, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    score_rows out = a.out();
    out.positions = positions.data();
    kernels::window_scores(ctx, cache.view, q, window_options{1, row_reduce::sum, group_reduce::sum}, out);
  });
  CHECK(a.values == ascending);
  q.sum = row_sum::at_most_one, q.sees.window = 10;
  auto const seen = scores(a, layout::nhd, ctx, q, 2);
  for (std::size_t r = 0; r < a.rows.size(); ++r)
    for (std::int32_t j = 0; j < a.rows[r].tokens; ++j)
      CHECK((seen[static_cast<std::size_t>(a.begin[r] + j)] != 0) == (j >= a.rows[r].tokens - 11));
}

TEST_CASE("few query rows: an LSE of other logits is refused, a key that is not a number gives none") {
  host ctx;
  attention_case a(shape_of(2, 4, 16, 13));
  query_rows q = a.queries_with_lse(log_base::two);
  q.base = log_base::e;
  CHECK_THROWS_WITH(scores(a, layout::nhd, ctx, q, 1), Catch::Contains("log_base"));
  q.base = log_base::two;
  layouts::with_layout(layout::nhd, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    cache.set(*cache.view.find(role::k), 0, 1, 7, 3, std::nanf(""));
    kernels::window_scores(ctx, cache.view, q, window_options{1}, a.out());
    CHECK(std::isnan(a.values[static_cast<std::size_t>(a.begin[1]) + 7]));
  });
}

TEST_CASE("few query rows: quantised keys give the scores of decoded ones") {
  namespace coded = quantised_case;
  host ctx;
  std::size_t compared = 0;
  for (coded::format const& is : coded::formats()) {
    support::batch in = support::random_batch(7, {.Hq = 8, .H = 2, .D = coded::D, .N = {60, 33}}, 0.4);
    layouts::cache_shape const shape = support::cache_shape_of(in);
    layouts::with_layout(layout::nhd, coded::shape_of(shape, is), [&](auto& cache) {
      coded::quantise(cache, is, 17);
      coded::take_numbers(cache, is, in);
      auto const rows = support::all_rows(in);
      auto const scores_of = [&](auto const& view) {
        std::vector<float> out;
        kvevict::scores(ctx, presets::tova(),
                        prompt(view, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1),
                        budget{.tokens_per_head = 24}, out);
        return out;
      };
      support::with_cache(layout::nhd, shape, in, [&](auto& plain) {
        CAPTURE(is.name);
        CHECK(scores_of(cache.view) == scores_of(plain.view));
        ++compared;
      });
    });
  }
  CHECK(compared == coded::formats().size());
}

}  // namespace kernels_short_windows_test
