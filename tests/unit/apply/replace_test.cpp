// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/replace.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"

namespace apply_replace_test {

using namespace kvevict;
using support::contains, support::keep_of, support::refusal;

namespace {

std::vector<std::int32_t> without(std::int32_t tokens, std::int32_t victim) {
  std::vector<std::int32_t> out;
  for (std::int32_t t = 0; t < tokens; ++t)
    if (t != victim) out.push_back(t);
  return out;
}

}  // namespace

TEST_CASE("replace: names the slot that the next token overwrites, in every layout, and writes nothing") {
  host ctx;
  layouts::for_each_layout({.lengths = {9, 5, 1}, .heads = 2}, [&](auto& c) {
    CAPTURE(c.name());
    auto const before = c.snapshot();
    auto const done =
        replace(ctx, c.view, keep_of(c.view, {without(9, 4), without(9, 0), without(5, -1), without(5, -1), {}, {}}));
    CHECK(done.slot(0, 0) == 4);
    CHECK(done.slot(0, 1) == 0);
    CHECK(done.slot(1, 0) == -1);
    CHECK(done.slot(2, 1) == 0);
    CHECK(done.slots().size == 6);
    CHECK(done.order() == row_order::scattered);
    CHECK(c.snapshot() == before);
  });
}

TEST_CASE("replace: order survives while nothing or only the newest token goes") {
  host ctx;
  layouts::cache<std::int32_t> c(layouts::layout::head_pages, {.lengths = {9}, .heads = 2});
  CHECK(replace(ctx, c.view, keep_of(c.view, {without(9, -1), without(9, -1)})).order() == row_order::ascending);
  CHECK(replace(ctx, c.view, keep_of(c.view, {without(9, 8), without(9, -1)})).order() == row_order::ascending);
  CHECK(replace(ctx, c.view, keep_of(c.view, {without(9, -1), without(9, 7)})).order() == row_order::scattered);
  auto const scattered = c.view.with_order(row_order::scattered);
  CHECK(replace(ctx, scattered, keep_of(c.view, {without(9, -1), without(9, -1)})).order() == row_order::scattered);
}

TEST_CASE("replace: what cannot be replaced is refused") {
  host ctx;
  layouts::cache<std::int32_t> c(layouts::layout::nhd, {.lengths = {9}, .heads = 2});
  auto const says = [&](auto const& view, std::vector<std::vector<std::int32_t>> const& rows) {
    return refusal([&] { replace(ctx, view, keep_of(view, rows)); });
  };
  CHECK(contains(says(c.view, {{0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}}), "evicts 2 tokens"));
  CHECK(contains(says(c.view, {without(9, 2), without(9, -1)}), "share a page table"));
  std::int32_t const read_only[] = {4};
  CHECK(contains(says(c.view.with_read_only(read_only), {without(9, 3), without(9, 5)}), "read-only prefix"));
  CHECK(says(c.view.with_read_only(read_only), {without(9, 4), without(9, 5)}).empty());
  auto common = c.view;
  common.components[2].rows.head_stride = 0;  // positions
  CHECK(contains(says(common, {without(9, 2), without(9, 5)}), "component position has one row for all heads"));
  CHECK(says(common, {without(9, 5), without(9, 5)}).empty());
  common = c.view;
  common.components[1].scope = quant_scope::page_channel;
  CHECK(contains(says(common, {without(9, 2), without(9, 5)}), "quantised per page"));
  CHECK(says(common, {without(9, -1), without(9, -1)}).empty());
}

TEST_CASE("replace: no call after the first allocates") {
  host ctx;
  layouts::cache<std::int32_t> c(layouts::layout::head_pages, {.lengths = {90, 70}, .heads = 2});
  auto const keep = keep_of(c.view, {without(90, 4), without(90, 5), without(70, 6), without(70, -1)});
  replaced done;
  replace(ctx, c.view, keep, done);
  auto const before = allocations();
  replace(ctx, c.view, keep, done);
  CHECK(allocations() == before);
}

}  // namespace apply_replace_test
