// SPDX-License-Identifier: Apache-2.0
// Stacks whose layers have one row of positions a token, on the host; the bodies are in support/common_positions.hpp.
#include "support/common_positions.hpp"

namespace apply_common_positions_test {

using namespace kvevict;
using namespace support;
namespace common = support::common_positions;

namespace {

common::outcome compacted_on_host(common::cache c, keep_set const& keep, compaction mode) {
  host ctx;
  compacted<std::int32_t> done;
  common::outcome out;
  out.said = refusal([&] { compact(ctx, c.view(), keep, mode, done); });
  out.pool = c.pool;
  if (out.said.empty()) out.bytes = done.bytes_moved();
  return out;
}

}  // namespace

TEST_CASE("positions common to layers move once, with the K and V of all of them") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) common::check(seed, compacted_on_host);
}

TEST_CASE("layers that share positions keep one set: plan, compact, apply and replace refuse others") {
  common::refusals(compacted_on_host, [](auto const& policy, common::cache& c) {
    host ctx;
    keep_set keep;
    return refusal(
        [&] { plan(ctx, policy, contents(c.view()), budget{.tokens_per_head = 6, .layer_count = 3}, keep); });
  });
  host ctx;
  common::cache c(common::shapes[4]);
  std::vector<std::vector<std::int32_t>> rows;
  common::cache::each_row([&](std::int32_t b, std::int32_t) {
    rows.emplace_back();
    for (std::int32_t t = 0; t < common::cache::tokens[b % 2]; ++t)
      if (t != 5) rows.back().push_back(t);
  });
  auto const before = c.pool;
  CHECK(refusal([&] { replace(ctx, c.view(), keep_of(c.view(), rows)); }) == "");
  rows[11][5] = 5;  // 6 is given up in its place
  std::string const apart = "sequence 5, head 1 is of layer 2 and ";
  CHECK(contains(refusal([&] { replace(ctx, c.view(), keep_of(c.view(), rows)); }), apart + "evicts"));
  move_plan const moves = plan_moves(ctx, c.view(), keep_of(c.view(), rows), compaction::stable);
  CHECK(contains(refusal([&] { apply(ctx, c.view(), moves); }), apart + "moves"));
  CHECK((c.pool == before));
}

TEST_CASE("positions common to layers are written where a row of any layer may write them") {
  // head 1 of sequence 0 and head 0 of sequence 1 have one row of positions
  std::vector<std::int32_t> const lengths(8, 1);
  std::vector<std::byte> pool(64);
  layer_view<> v;
  v.pages.sequences = 4, v.pages.heads = 2, v.pages.layers = 2, v.pages.page_size = 1, v.pages.columns = 1;
  v.pages.head_stride = 1;
  v.lengths = {lengths.data(), 2, 1};
  component k, positions;
  k.rows.base = pool.data(), k.rows.page_count = 2, k.rows.run_bytes = 4, k.rows.slot_stride = 4;
  k.rows.head_stride = 4, k.rows.page_stride = 8, k.rows.layer_stride = 16;
  positions.rows = k.rows, positions.what = role::position, positions.type = dtype::i32;
  positions.rows.base = pool.data() + 32, positions.rows.layer_stride = 0;
  positions.rows.page_count = 3, positions.rows.page_stride = 4;
  v = v.with(k).with(positions);
  for (std::int32_t written = 0; written < 4; ++written) {
    std::int32_t read_only[] = {1, 1, 1, 1};
    CHECK(refusal([&] { validate(v.with_read_only(read_only)); }) == "");
    read_only[written] = 0;
    CAPTURE(written);
    CHECK(contains(refusal([&] { validate(v.with_read_only(read_only)); }), "would be written by both"));
  }
}

}  // namespace apply_common_positions_test
