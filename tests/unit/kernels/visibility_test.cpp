// SPDX-License-Identifier: Apache-2.0
// What a row sees, entry by entry in double precision, against every kernel that reads attention.
#include <kvevict/kernels/attention_rows.hpp>
#include <kvevict/kernels/column_sums.hpp>
#include <kvevict/kernels/window_scores.hpp>

#include <numeric>

#include "support/catch.hpp"
#include "support/seeing_case.hpp"

using namespace kvevict;
using namespace reference;
using layouts::layout;

namespace {

void check(seeing_case const& c, std::int32_t W) { CHECK(worst_error(c, W) <= 2e-5); }

}  // namespace

TEST_CASE("a row sees by position, within its window and chunk, behind padding, and sinks") {
  host ctx;
  std::vector<float> lse, memory;
  std::vector<std::int32_t> positions;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
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
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
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
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
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
  refused(true, row_order::scattered, {.first_token = first.data()}, true, "is for ascending rows");
  refused(true, row_order::ascending, {.window = -1}, true, "give counts");
}
