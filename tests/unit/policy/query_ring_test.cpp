// SPDX-License-Identifier: Apache-2.0
// A ring of the last W queries: what it holds, and that window policies plan from it while decoding.
#include <kvevict/kvevict.hpp>

#include "support/query_rings.hpp"

namespace policy_query_ring_test {

using namespace support;
using Catch::Contains;

TEST_CASE("query ring: it holds the last rows of each sequence, whatever steps bring") {
  kvevict::host ctx;
  for (std::uint64_t seed = 1; seed < 9; ++seed) {
    ring_case c(seed);
    for (int step = 0; step < 60; ++step) {
      c.advance();
      kvevict::push(ctx, c.ring(), c.step(), 3);
      c.check();
    }
  }
}

TEST_CASE("query ring: a window policy plans while decoding, and behind a chunk shorter than its window") {
  batch const in = random_batch(99, {.Hq = 4, .H = 2, .D = 8, .N = {40, 33}, .future = 0});
  constexpr std::size_t W = 6;
  kvevict::host ctx;
  std::vector<float> data(2 * 2 * W * 32);
  std::vector<std::int32_t> positions(2 * 2 * W), begin(2), count(2);
  kvevict::query_ring const ring{data.data(),      kvevict::dtype::f32, W,           4, 8,
                                 positions.data(), begin.data(),        count.data()};
  auto const push = [&](std::vector<std::size_t> const& from, std::vector<std::size_t> const& to) {
    attention const rows = rows_of(in, whole_cache(in), from, to);
    kvevict::push(ctx, ring, rows.queries(), 2);
  };
  push({0, 0}, {36, 30}), push({36, 30}, {37, 32}), push({37, 32}, {40, 33});  // a chunk, then 1 and 2, then 3 and 1
  attention const last = last_rows(in, W);
  auto const policy = kvevict::presets::ada_snapkv({.window = W, .pool = 3});
  with_cache(in, [&](auto& cache) {
    std::vector<float> got, want;
    kvevict::scores(ctx, policy, kvevict::prompt(cache.view, ring.rows()), {.tokens_per_head = 16}, got);
    kvevict::scores(ctx, policy, kvevict::prompt(cache.view, last.queries()), {.tokens_per_head = 16}, want);
    CHECK(got == want);
  });
}

TEST_CASE("query ring: what is no ring, and rows that do not ascend, are refused before anything is written") {
  kvevict::host ctx;
  auto const refuses = [&](auto change, std::string const& what, std::string const& remedy) {
    ring_case c(3);
    for (int i = 0; i < 3; ++i) c.advance(), kvevict::push(ctx, c.ring(), c.step(), 3);
    while (c.row_begin[2] - c.row_begin[1] < 2) c.advance();
    kvevict::query_ring ring = c.ring();
    kvevict::query_rows rows = c.step();
    change(c, ring, rows);
    auto const before = std::tuple(c.data, c.positions, c.begin, c.count);
    CHECK_THROWS_WITH(kvevict::push(ctx, ring, rows, 3), Contains(what) && Contains(remedy));
    CHECK(before == std::tuple(c.data, c.positions, c.begin, c.count));
  };
  refuses([](auto&, auto& ring, auto&) { ring.window = 0; }, "a ring of 0 rows", "at least one row");
  refuses([](auto&, auto& ring, auto&) { ring.count = nullptr; }, "has no memory", "zeroed");
  refuses([](auto&, auto& ring, auto&) { ring.type = kvevict::dtype::f16; }, "4 heads of 8 f32 for a ring of", "type");
  refuses([](auto&, auto&, auto& rows) { rows.positions = nullptr; }, "carry no positions", "logical position");
  refuses([](auto& c, auto&, auto&) { c.at[size_t(c.row_begin[1]) + 1] = c.at[size_t(c.row_begin[1])]; },
          "positions of the rows of sequence 1", "oldest first");
  refuses([](auto& c, auto&, auto&) { c.count[2] = 6; }, "the ring of sequence 2 has 6 rows", "zero begin and count");
}

}  // namespace policy_query_ring_test
