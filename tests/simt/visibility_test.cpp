// SPDX-License-Identifier: Apache-2.0
// What a row sees on a device: the host's numbers, which unit/kernels/visibility compares with the mask entry by entry.
#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/softmax_rows.hpp>
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/kernels/attention_rows.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/score_calls.hpp"
#include "support/catch.hpp"
#include "support/seeing_case.hpp"

namespace visibility_test {

using namespace simt_test;
using namespace reference;

namespace {

auto window(std::int32_t rows) {
  return [rows](auto& ctx, auto const& view, auto const& given, score_rows const& out) {
    kernels::window_scores(ctx, view, given, kvevict::window_options{rows, row_reduce::sum}, out);
  };
}
auto all_rows() {
  return [](auto& ctx, auto const& view, auto const& given, score_rows const& out) {
    kernels::column_sums(ctx, view, given, group_reduce::mean, out);
  };
}

/// Of query rows with and without an LSE and of softmax rows, as one seed has it.
template <class Call> void compare(std::uint64_t seed, bool scattered, bool whole, std::int32_t rows, Call call) {
  CAPTURE(seed, scattered, whole);
  seeing_case c = random_case(seed, scattered, whole);
  vary(c, seed);
  std::vector<float> lse, memory;
  std::vector<std::int32_t> positions;
  auto const l = layouts::all[seed % std::size(layouts::all)];
  layouts::with_layout(l, c.a.shape.cache, [&](auto& cache) {
    c.fill(cache);
    cache.view = c.view_of(cache.view);
    auto const out = rows_of(c, positions);
    if (seed % 3 == 2)
      same(cache, out, softmax_of(c, memory), 2e-5, call);
    else
      same(cache, out, queries_of(c, seed % 3 == 1, lse), 2e-5, call);
    CHECK(worst_error(c, rows) <= 2e-5);  // the host's, once more
  });
}

}  // namespace

TEST_CASE("a row sees by position on a device, within its window and chunk, behind padding, and sinks") {
  for (std::uint64_t seed = 1; seed <= 36; ++seed) compare(seed, seed % 4 == 0, false, 8, window(8));
}

TEST_CASE("all rows of a prompt see by position on a device") {
  for (std::uint64_t seed = 101; seed <= 115; ++seed) compare(seed, false, true, 1000, all_rows());
}

TEST_CASE("softmax rows whose columns are cells, on a device") {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    seeing_case c = random_case(seed, seed % 3 == 0, false);
    vary(c, seed);
    std::vector<float> memory;
    std::vector<std::int32_t> positions;
    layouts::cache<std::int32_t> cache(seed % 2 == 0 ? layouts::layout::token_pool : layouts::layout::nhd,
                                       c.a.shape.cache);
    c.fill(cache);
    cache.view = c.view_of(cache.view);
    auto const out = rows_of(c, positions);
    attention_rows rows = by_cell(c, cache.view, memory);
    same(cache, out, rows, 2e-5, window(8));
    CHECK(worst_error(c, 8) <= 2e-5);
    std::int32_t const last = c.a.sequences() - 1, tokens = c.a.tokens(last, 0), P = cache.view.pages.page_size;
    if (tokens == 0) continue;
    rows.slots = cache.view.pages.entry(last, 0, (tokens - 1) / P) * P + (tokens - 1) % P;  // one too few
    std::string text;
    there(cache, out, rows, window(8), -1, &text);
    CHECK(text.find("a softmax row has") != std::string::npos);
  }
}

TEST_CASE("rows and a cache that contradict each other are refused by a device in the host's words") {
  attention_shape s;
  s.cache.lengths = {40, 30}, s.cache.heads = 2, s.query_tokens = {8, 8};
  std::vector<std::int32_t> at(16), first{0, 5};
  auto const refused = [&](bool carried, row_order order, visibility const& sees, bool with_positions) {
    seeing_case c{attention_case(s), {}, at, {}, {}, sees, order == row_order::scattered, carried};
    std::vector<std::int32_t> positions, row;
    for (std::int32_t const n : {40, 40, 30, 30}) {
      row.resize(static_cast<std::size_t>(n));
      std::iota(row.begin(), row.end(), 0);
      c.tokens.push_back(row);
    }
    layouts::with_layout(layouts::layout::head_pages, s.cache, [&](auto& cache) {
      c.fill(cache);
      cache.view = c.view_of(cache.view);
      query_rows q = c.a.queries();
      q.positions = with_positions ? at.data() : nullptr, q.sees = sees;
      auto const out = rows_of(c, positions);
      std::string by_host, by_device;
      host ctx;
      try {
        window(with_positions ? 8 : 1)(ctx, cache.view, q, out);
      } catch (contract_violation const& e) {
        by_host = e.what();
      }
      there(cache, out, q, window(with_positions ? 8 : 1), -1, &by_device);
      CHECK(by_host.find("evidence: row ") == 0);
      CHECK(by_device == by_host);
    });
  };
  auto const from = [&](std::int32_t p, std::int32_t q) {
    std::iota(at.begin(), at.begin() + 8, p), std::iota(at.begin() + 8, at.end(), q);
  };
  from(32, 18);
  refused(false, row_order::ascending, {}, true);
  from(32, 40);
  refused(false, row_order::ascending, {.window = 16}, true);
  from(32, -1);
  refused(true, row_order::ascending, {}, true);
  from(32, 22), std::swap(at[10], at[11]);
  refused(true, row_order::ascending, {}, true);
  refused(true, row_order::scattered, {.window = 16}, false);
  from(32, 22);
  refused(true, row_order::scattered, {.first_token = first.data()}, true);
}

}  // namespace visibility_test
