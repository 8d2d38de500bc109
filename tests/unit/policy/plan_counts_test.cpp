// SPDX-License-Identifier: Apache-2.0
// How many tokens a plan will leave, without one; against plans: laws/budgets, one step ahead of a device: simt/ahead.
#include <kvevict/kvevict.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace policy_plan_counts_test {

using namespace kvevict;
using support::contains;
using support::refusal;

namespace {

/// Lengths in host memory; pages and their table are elsewhere, and reading them would end the program.
struct elsewhere {
  std::vector<std::int32_t> lengths{30, 12, 7, 30};  // 2 sequences, 2 heads

  layer_view<> view() const {
    layer_view<> v;
    v.pages.sequences = 2, v.pages.heads = 2, v.pages.page_size = 4, v.pages.head_stride = 1, v.pages.columns = 9;
    v.pages.entries = reinterpret_cast<std::int32_t const*>(64);
    v.pages.row_begin = reinterpret_cast<std::int32_t const*>(64);
    v.lengths = {lengths.data(), 2, 1};
    component k;
    k.rows.base = reinterpret_cast<std::byte*>(64), k.rows.page_count = 99, k.rows.run_bytes = 4;
    k.rows.slot_stride = 4, k.rows.page_stride = 16;
    component positions = k;
    positions.what = role::position, positions.type = dtype::i32;
    return v.with(k).with(positions);
  }
};

using rows = std::vector<std::int32_t>;
using sums = std::vector<std::int64_t>;
constexpr std::int32_t by_scores = planned_counts::by_scores;

}  // namespace

TEST_CASE("counts are known from lengths and budgets, and no page is read") {
  host ctx;
  elsewhere const e;
  auto const snapkv = presets::snapkv({.window = 8}), ada = presets::snapkv({.window = 8});
  auto counts = plan_counts(ctx, snapkv, e.view(), {.tokens_per_head = 16});
  CHECK(counts.rows == rows{16, 12, 7, 16});
  CHECK(counts.sequences == sums{28, 23});
  CHECK(counts(1, 1) == 16);

  auto const shared = ada.with(heads::adaptive{});
  counts = plan_counts(ctx, shared, e.view(), {.tokens_per_head = 19});
  CHECK(counts.rows == rows{by_scores, by_scores, 7, 30});
  CHECK(counts.sequences == sums{38, 37});

  auto const capped = ada.with(heads::threshold{0.5f});
  counts = plan_counts(ctx, capped, e.view(), {.tokens_per_head = budget::no_cap});
  CHECK(counts(0, 0) == by_scores);
  CHECK(counts(1, 0) == 7);  // within the window
  CHECK(counts.sequences == sums{by_scores, by_scores});

  std::int32_t const each[] = {9, 40};
  std::uint8_t const whole[] = {1, 0};
  counts = plan_counts(ctx, snapkv, e.view(), {.per_sequence = each, .whole = whole});
  CHECK(counts.rows == rows{30, 12, 7, 30});
  CHECK(plan_counts(ctx, snapkv, e.view(), {.per_sequence = each}).rows == rows{9, 9, 7, 30});
  CHECK(plan_counts(ctx, snapkv, e.view().with_order(row_order::scattered), {.per_sequence = each}).rows ==
        rows{9, 9, 7, 30});
}

TEST_CASE("counts of whole pages of 4 are the part-filled one and the full ones that the budget holds") {
  host ctx;
  elsewhere const e;
  auto const by_page = presets::snapkv({.window = 8}).with(select::pages{});
  CHECK(plan_counts(ctx, by_page, e.view(), {.tokens_per_head = 16}).rows == rows{14, 12, 7, 14});
  auto const shared = plan_counts(ctx, by_page.with(heads::adaptive{}), e.view(), {.tokens_per_head = 18});
  CHECK(shared.rows == rows{by_scores, by_scores, by_scores, by_scores});
  CHECK(shared.sequences == sums{34, 33});  // 2 + 8·4 of 36, 5 + 7·4 of 36
  CHECK(contains(refusal([&] { plan_counts(ctx, by_page, e.view(), {.tokens_per_head = 9}); }),
                 "below the 10 tokens of sequence 0 in pages of 4 that stay whole"));
}

TEST_CASE("what a plan would refuse of lengths and budgets is refused before it, and the counts are as they were") {
  host ctx;
  elsewhere e;
  auto const snapkv = presets::snapkv({.window = 8});
  planned_counts out = plan_counts(ctx, snapkv, e.view(), {.tokens_per_head = 16});
  auto const says = [&](layer_view<> const& v, budget const& b) {
    auto const before = out.rows;
    std::string const text = refusal([&] { plan_counts(ctx, snapkv, v, b, out); });
    CHECK(out.rows == before);
    return text;
  };
  CHECK(contains(says(e.view(), {}), "plan: tokens_per_head is 0"));
  CHECK(contains(says(e.view(), {.tokens_per_head = 5}), "below"));
  CHECK(contains(says(e.view(), {.tokens_per_head = 16, .layer = 2, .layer_count = 2}), "plan: layer 2 of 2"));
  std::int32_t const read_only[] = {24, 0};
  CHECK(contains(says(e.view().with_read_only(read_only), {.tokens_per_head = 16}), "below"));
  CHECK(contains(refusal([&] {
                   plan_counts(ctx, snapkv.with(layers::together{}), e.view(),
                               {.tokens_per_head = 16, .layer_count = 2}, out);
                 }),
                 "layers::together needs all 2 layers in one view"));
  auto shared = e.view();
  shared.pages.head_stride = 0;
  CHECK(contains(says(shared, {.tokens_per_head = 16}), "share a page table"));
  e.lengths[2] = -1;
  CHECK(contains(says(e.view(), {.tokens_per_head = 16}), "-1"));
}

TEST_CASE("counts take no memory after the first call") {
  host ctx;
  elsewhere const e;
  auto const pyramid = presets::pyramidkv({.window = 8});
  planned_counts out;
  plan_counts(ctx, pyramid, e.view(), {.tokens_per_head = 16, .layer_count = 4}, out);
  auto const before = allocations();
  plan_counts(ctx, pyramid, e.view(), {.tokens_per_head = 16, .layer_count = 4}, out);
  CHECK(allocations() == before);
}

}  // namespace policy_plan_counts_test
