// SPDX-License-Identifier: Apache-2.0
// What a row sees, entry by entry in double precision, against every kernel that reads attention.
#include <kvevict/kernels/attention_rows.hpp>
#include <kvevict/kernels/column_sums.hpp>
#include <kvevict/kernels/window_scores.hpp>
#include <kvevict/kvevict.hpp>

#include <numeric>

#include "support/catch.hpp"
#include "support/seeing_case.hpp"

namespace kernels_visibility_test {

using namespace kvevict;
using layouts::layout;
using reference::attention_case, reference::attention_shape, reference::seeing_case;
using reference::by_cell, reference::expected, reference::queries_of, reference::random_case, reference::rows_of,
    reference::softmax_of, reference::vary, reference::worst_error;

namespace {

void check(seeing_case const& c, std::int32_t W) { CHECK(worst_error(c, W) <= 2e-5); }

}  // namespace

TEST_CASE("a row sees by position, within its window and chunk, behind padding, and sinks") {
  host ctx;
  std::vector<float> lse, memory;
  std::vector<std::int32_t> positions;
  for (std::uint64_t seed = 1; seed <= 72; ++seed) {
    CAPTURE(seed);
    seeing_case c = random_case(seed, seed % 3 == 0, false);
    vary(c, seed);
    window_options o{8, row_reduce::sum};
    layout const l = layouts::all[seed % std::size(layouts::all)];
    layouts::with_layout(l, c.a.shape.cache, [&](auto& cache) {
      c.fill(cache);
      auto const view = c.view_of(cache.view);
      auto const out = rows_of(c, positions);
      for (bool const normalised : {false, true}) {
        kernels::window_scores(ctx, view, queries_of(c, normalised, lse), o, out);
        check(c, o.rows);
      }
      kernels::window_scores(ctx, view, softmax_of(c, memory), o, out);
      check(c, o.rows);
    });
  }
}

TEST_CASE("all rows of a prompt see by position, within their windows and chunks, behind padding, and sinks") {
  host ctx;
  std::vector<float> lse, memory;
  std::vector<std::int32_t> positions;
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    CAPTURE(seed);
    seeing_case c = random_case(seed, false, true);
    vary(c, seed);
    layout const l = layouts::all[seed % std::size(layouts::all)];
    layouts::with_layout(l, c.a.shape.cache, [&](auto& cache) {
      c.fill(cache);
      auto const out = rows_of(c, positions);
      for (bool const normalised : {false, true}) {
        kernels::column_sums(ctx, cache.view, queries_of(c, normalised, lse), group_reduce::mean, out);
        check(c, 1000);
      }
      kernels::column_sums(ctx, cache.view, softmax_of(c, memory), group_reduce::mean, out);
      check(c, 1000);
    });
  }
}

TEST_CASE("without positions in the cache a token's position is its slot behind the padding") {
  host ctx;
  std::vector<float> lse;
  std::vector<std::int32_t> positions;
  for (std::uint64_t seed = 1; seed <= 16; ++seed) {
    CAPTURE(seed);
    seeing_case c = random_case(seed, false, true);
    vary(c, seed);
    c.carried = false;
    for (std::int32_t b = 0; b < c.a.sequences(); ++b)
      for (std::int32_t i = 0; i < c.a.tokens(b, 0); ++i) {
        std::int32_t const pad = c.sees.first_token == nullptr ? 0 : c.first_token[static_cast<std::size_t>(b)];
        for (std::int32_t h = 0; h < c.a.heads(); ++h)
          c.tokens[static_cast<std::size_t>(b * c.a.heads() + h)][static_cast<std::size_t>(i)] = i - pad;
        c.row_positions[static_cast<std::size_t>(c.first_row(b) + i)] = i - pad;
      }
    layouts::with_layout(layout::nhd, c.a.shape.cache, [&](auto& cache) {
      c.a.fill(cache);
      auto const view = c.view_of(cache.view);
      query_rows q = queries_of(c, seed % 2 == 0, lse);
      q.positions = nullptr;
      window_options o{8, row_reduce::sum};
      kernels::window_scores(ctx, view, q, o, rows_of(c, positions));
      check(c, o.rows);
      kernels::column_sums(ctx, view, q, group_reduce::mean, rows_of(c, positions));
      check(c, 1000);
    });
  }
}

TEST_CASE("softmax rows whose columns are cells need no copy, and cells beyond a row are refused") {
  host ctx;
  std::vector<float> memory;
  std::vector<std::int32_t> positions;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    seeing_case c = random_case(seed, seed % 3 == 0, false);
    vary(c, seed);
    window_options const o{8, row_reduce::sum};
    layouts::cache<std::int32_t> cache(seed % 2 == 0 ? layout::token_pool : layout::nhd, c.a.shape.cache);
    c.fill(cache);
    auto const view = c.view_of(cache.view);
    attention_rows rows = by_cell(c, view, memory);
    kernels::window_scores(ctx, view, rows, o, rows_of(c, positions));
    check(c, o.rows);
    std::int32_t const last = c.a.sequences() - 1, tokens = c.a.tokens(last, 0);
    if (tokens == 0) continue;
    std::int32_t const P = view.pages.page_size;
    rows.slots = view.pages.entry(last, 0, (tokens - 1) / P) * P + (tokens - 1) % P;  // one too few
    CHECK_THROWS_WITH(kernels::window_scores(ctx, view, rows, o, rows_of(c, positions)),
                      Catch::Contains("a softmax row has"));
  }
}

TEST_CASE("column sums are divided by the rows that see a token") {
  host ctx;
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    CAPTURE(seed);
    seeing_case c = random_case(seed, false, true);
    vary(c, seed);
    policy const by_rows{score::accumulated_attention{score::column_norm::rows_that_see}};
    layouts::with_layout(layout::head_pages, c.a.shape.cache, [&](auto& cache) {
      c.fill(cache);
      std::vector<float> lse, got;
      scores(ctx, by_rows, prompt(cache.view, queries_of(c, false, lse)), {.tokens_per_head = 1}, got);
      std::size_t at = 0;
      double worst = 0;
      for (row const& r : c.a.rows) {
        bool const cut = r.tokens > 1;
        for (std::int32_t j = 0; j < r.tokens; ++j, ++at) {
          int see = 0, later = 0;
          for (std::int32_t i = 0; i < r.tokens; ++i) {
            see += c.is_seen(r.sequence, r.head, c.first_row(r.sequence) + i, j);
            later += i == r.tokens - 1 && c.is_seen(r.sequence, r.head, c.first_row(r.sequence) + i, j);
          }
          if (!cut || (later == 0 && !c.sees.is_whole())) continue;  // not scored, or put last
          double const want = see == 0 ? 0 : expected(c, r.sequence, r.head, 1000, j) / see;
          worst = std::max(worst, std::abs(double{got[at]} - want));
        }
      }
      CHECK(worst <= 2e-5);
    });
  }
}

TEST_CASE("accumulated attention is divided by a token's age in positions, evicted rows counted, within its window") {
  host ctx;
  layouts::cache_shape s;
  s.lengths = {12}, s.heads = 1, s.state_floats = 1, s.page_size = 4;
  layouts::cache<std::int32_t> cache(layout::nhd, s);
  cache.fill([](int, int, int, int) { return 1.0f; }, [](int, int, int, int) { return 1.0f; });
  cache.fill(role::position, [](int, int, int t, int) { return t * 3; });
  cache.fill(role::state, [](int, int, int, int) { return 60.0f; });
  policy const by_rows{score::accumulated_attention{score::column_norm::rows_that_see}};
  std::vector<float> got;
  scores(ctx, by_rows, remembered(cache.view), {.tokens_per_head = 4}, got);
  for (std::size_t t = 0; t < 12; ++t) CHECK(got[t] == Approx(60.0 / (33 - 3 * static_cast<int>(t) + 1)));
  scores(ctx, by_rows, remembered(cache.view).with_visibility({.window = 10}), {.tokens_per_head = 4}, got);
  for (std::size_t t = 8; t < 12; ++t) CHECK(got[t] == Approx(60.0 / std::min(10, 33 - 3 * static_cast<int>(t) + 1)));
}

TEST_CASE("what rows say of themselves that they see goes for the plan, too") {
  host ctx;
  attention_shape s;
  s.cache.lengths = {40}, s.cache.heads = 1, s.query_tokens = {8};
  attention_case a(s);
  layouts::with_layout(layout::nhd, s.cache, [&](auto& cache) {
    a.fill(cache);
    query_rows q = a.queries();
    q.sees.window = 12;
    auto const policy = presets::snapkv({.window = 4, .pool = 1});
    auto const keep = plan(ctx, policy, prompt(cache.view, q), {.tokens_per_head = 20});
    CHECK(keep.row(0).size == 12);
    q.sees = {};
    CHECK(plan(ctx, policy, prompt(cache.view, q).with_visibility({.window = 12}), {.tokens_per_head = 20}).tokens ==
          keep.tokens);
  });
}

TEST_CASE("rows and a cache that contradict each other are refused") {
  host ctx;
  attention_shape s;
  s.cache.lengths = {40}, s.cache.heads = 1, s.query_tokens = {8};
  std::vector<std::int32_t> at(8), first{5};
  auto const refused = [&](bool carried, row_order order, visibility const& sees, bool with_positions,
                           char const* part) {
    seeing_case c{attention_case(s), {}, at, {}, {}, sees, order == row_order::scattered, carried};
    std::vector<std::int32_t> positions(40);
    std::iota(positions.begin(), positions.end(), 0);
    c.tokens = {positions};
    layouts::with_layout(layout::nhd, s.cache, [&](auto& cache) {
      c.fill(cache);
      query_rows q = c.a.queries();
      q.positions = with_positions ? at.data() : nullptr, q.sees = sees;
      window_options const o{with_positions ? 8 : 1};
      CHECK_THROWS_WITH(kernels::window_scores(ctx, c.view_of(cache.view), q, o, rows_of(c, positions)),
                        Catch::Contains(part));
    });
  };
  auto const from = [&](std::int32_t p) { std::iota(at.begin(), at.end(), p); };
  from(28);  // drafts behind the window's rows
  refused(false, row_order::ascending, {}, true, "before the slot of its token");
  from(50);
  refused(false, row_order::ascending, {.window = 16}, true, "tokens were evicted");
  from(-1);
  refused(true, row_order::ascending, {}, true, "which no token has");
  from(32), std::swap(at[2], at[3]);
  refused(true, row_order::ascending, {}, true, "in order of position");
  refused(true, row_order::scattered, {.window = 16}, false, "give the rows their positions");
  from(32);
  refused(true, row_order::scattered, {.first_token = first.data()}, true, "is a slot of ascending rows");
  first[0] = -3;
  refused(true, row_order::ascending, {.first_token = first.data()}, true, "below slot 0");
  refused(true, row_order::ascending, {.window = -1}, true, "give counts");
}

}  // namespace kernels_visibility_test
