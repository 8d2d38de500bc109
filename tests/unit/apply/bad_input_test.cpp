// SPDX-License-Identifier: Apache-2.0
// What must be refused before a byte of the cache changes: every case says what is wrong, what to do, and leaves the
// pool as it was.
#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/drop_pages.hpp>
#include <kvevict/apply/replace.hpp>
#include <kvevict/cache/stored.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/streaming_llm.hpp>

#include <functional>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"

namespace apply_bad_input_test {

using namespace kvevict;
using layouts::layout;
using support::contains, support::keep_of, support::refusal;

namespace {

struct scene {
  layouts::cache<std::int32_t> cache;
  keep_set keep;
  std::vector<std::int32_t> read_only;

  explicit scene(layout l = layout::nhd)
      : cache(l, {.lengths = {10, 7}, .heads = 2, .page_size = 4, .state_floats = 1}),
        keep(keep_of(cache.view, {{0, 2, 5, 9}, {1, 2, 3, 8}, {0, 3, 4}, {2, 5, 6}})),
        read_only{0, 0} {}
  layer_view<>& view() { return cache.view; }
};

/// Refused by every verb that writes or would let the engine write, with the cache byte-identical afterwards. Whether
/// heads agree on rows that they share is seen when they are moved.
void expect_refused(scene& s, std::string const& words, bool when_planned = true) {
  auto const before = s.cache.snapshot();
  host ctx;
  auto const check = [&](std::string const& message) {
    INFO(message);
    CHECK(contains(message, words));
    CHECK(contains(message, "; "));
    CHECK(s.cache.snapshot() == before);
  };
  for (compaction const mode : {compaction::stable, compaction::fill_holes}) {
    check(refusal([&] { compact(ctx, s.view(), s.keep, mode); }));
    if (when_planned) check(refusal([&] { plan_moves(ctx, s.view(), s.keep, mode); }));
  }
  if (!when_planned) return;
  CHECK_FALSE(contains(refusal([&] { compact(ctx, s.view(), s.keep); }), "plan_moves: "));
  CHECK_FALSE(contains(refusal([&] { plan_moves(ctx, s.view(), s.keep); }), "compact: "));
}

void expect_plan_refused(std::string const& words, std::function<void(scene&, move_plan&)> const& damage,
                         layout l = layout::head_pages) {
  scene s(l);
  host ctx;
  auto plan = plan_moves(ctx, s.view(), s.keep);
  damage(s, plan);
  auto const before = s.cache.snapshot();
  std::string const message = refusal([&] { kvevict::apply(ctx, s.view(), plan); });
  INFO(message);
  CHECK(contains(message, words));
  CHECK(contains(message, "; "));
  CHECK(s.cache.snapshot() == before);
}

}  // namespace

TEST_CASE("bad input: the scene itself is sound") {
  for (layout const l : {layout::nhd, layout::head_pages}) {
    scene s(l);
    host ctx;
    CHECK(compact(ctx, s.view(), s.keep).moves().moves() == 12);
  }
}
TEST_CASE("bad input: page id out of range") {
  scene s;
  s.cache.entries()[0] = 4000;
  expect_refused(s, "has id 4000");
}
TEST_CASE("bad input: page twice in a row") {
  scene s;
  s.cache.entries()[0] = s.cache.entries()[1];
  expect_refused(s, "are the same page");
}
TEST_CASE("bad input: page of two sequences") {
  scene s;
  s.cache.entries()[4] = s.cache.entries()[1];
  expect_refused(s, "would be written by both");
}
TEST_CASE("bad input: K and V overlap") {
  scene s;
  s.view().components[1].rows = s.view().components[0].rows;
  expect_refused(s, "components k and v overlap");
}
TEST_CASE("bad input: length beyond the table") {
  scene s;
  s.cache.lengths()[0] = 13;
  expect_refused(s, "table addresses 12");
}
TEST_CASE("bad input: misaligned stride") {
  scene s;
  s.view().components[0].rows.slot_stride += 1;
  expect_refused(s, "not a multiple of its 4-byte elements");
}
TEST_CASE("bad input: address overflow") {
  scene s;
  s.view().components[0].rows.page_stride = std::int64_t{1} << 62;
  expect_refused(s, "does not fit into 64 bits");
}
TEST_CASE("bad input: keep set of another batch") {
  scene s;
  s.keep.sequences = 1;
  expect_refused(s, "use the view that was planned on");
}
TEST_CASE("bad input: keep set of other heads") {
  scene s;
  s.keep.heads = 4, s.keep.sequences = 1;
  expect_refused(s, "use the view that was planned on");
}
TEST_CASE("bad input: keep set planned before the cache grew") {
  scene s;
  s.keep.lengths[2] = 6;
  expect_refused(s, "plan again");
}
TEST_CASE("bad input: keep set with a token beyond the row") {
  scene s;
  s.keep.tokens[3] = 10;
  expect_refused(s, "not strictly ascending within [0, 10)");
}
TEST_CASE("bad input: keep set with a negative token") {
  scene s;
  s.keep.tokens[0] = -1;
  expect_refused(s, "not strictly ascending");
}
TEST_CASE("bad input: keep set not ascending") {
  scene s;
  std::swap(s.keep.tokens[1], s.keep.tokens[2]);
  expect_refused(s, "not strictly ascending");
}
TEST_CASE("bad input: keep set with a token twice") {
  scene s;
  s.keep.tokens[1] = s.keep.tokens[2];
  expect_refused(s, "not strictly ascending");
}
TEST_CASE("bad input: keep set whose offsets do not fit") {
  scene s;
  s.keep.row_begin[1] = 9;
  expect_refused(s, "do not describe its tokens");
  s.keep.row_begin[1] = 4, s.keep.row_begin.pop_back();
  expect_refused(s, "do not describe its tokens");
}
TEST_CASE("bad input: ragged result on a shared table") {
  scene s;
  s.keep = keep_of(s.view(), {{0, 2}, {1, 2, 3}, {0}, {0}});
  expect_refused(s, "heads 0 and 1 of sequence 0 keep 2 and 3 tokens but share a page table");
}
TEST_CASE("bad input: read-only prefix inside a moved range") {
  scene s;
  s.read_only = {4, 0};
  s.view().read_only = s.read_only.data();
  expect_refused(s, "read-only prefix of sequence 0, head 0 (4 tokens)");
  s.keep = keep_of(s.view(), {{0, 1, 2, 3, 9}, {0, 1, 2, 4, 8}, {0}, {0}});
  expect_refused(s, "read-only prefix of sequence 0, head 1");
}
TEST_CASE("bad input: read-only sequence that loses a token") {
  scene s;
  s.read_only = {0, 7};
  s.view().read_only = s.read_only.data();
  expect_refused(s, "read-only prefix of sequence 1");
}
TEST_CASE("bad input: read-only prefix that ends inside a page") {
  scene s;
  s.read_only = {3, 0};
  s.view().read_only = s.read_only.data();
  expect_refused(s, "not a multiple of the page size");
}
TEST_CASE("bad input: positions common to heads that keep different tokens") {
  scene s;
  s.view().components[2].rows.head_stride = 0;
  expect_refused(s, "component position has one row for all heads", false);
}
TEST_CASE("bad input: no lengths, pages of no tokens") {
  scene s;
  s.view().lengths.data = nullptr;
  expect_refused(s, "lengths.data is null");
  scene t;
  t.view().pages.page_size = 0;
  expect_refused(t, "a page of 0 tokens");
}
TEST_CASE("bad input: a compaction that there is not") {
  scene s;
  auto const before = s.cache.snapshot();
  host ctx;
  auto const mode = static_cast<compaction>(7);
  CHECK(refusal([&] { compact(ctx, s.view(), s.keep, mode); }) ==
        "compact: there is no compaction 7; give compaction::stable or compaction::fill_holes");
  CHECK(contains(refusal([&] { plan_moves(ctx, s.view(), s.keep, mode); }), "plan_moves: there is no compaction 7"));
  CHECK(s.cache.snapshot() == before);
}
TEST_CASE("bad input: rows that a result does not have") {
  scene s(layout::head_pages);
  host ctx;
  CHECK_THROWS_AS(compacted<std::int32_t>().freed_pages(0), contract_violation);
  CHECK_THROWS_AS(replaced().slot(0, 0), contract_violation);
  auto const done = compact(ctx, s.view(), s.keep);
  CHECK(done.length(1, 1) == 3);
  CHECK(done.freed_pages(3).size == 1);
  CHECK(contains(refusal([&] { done.freed_pages(4); }), "there is no row 4 in the page table; "));
  CHECK(contains(refusal([&] { done.freed_pages(-1); }), "there is no row -1 in the page table; "));
  CHECK(contains(refusal([&] { done.length(2, 0); }), "there is no sequence 2, head 0 among 2 of 2 heads; "));
  CHECK(contains(refusal([&] { done.length(0, 2); }), "there is no sequence 0, head 2"));
  CHECK(contains(refusal([&] { done.length(-1, 2); }), "there is no sequence -1, head 2"));
}
TEST_CASE("bad input: scales per page and channel") {
  scene s;
  s.view().components[1].scope = quant_scope::page_channel;
  expect_refused(s, "drop_pages instead");
  s.keep = keep_of(s.view(), {{0, 1, 2}, {0, 1, 2}, {0}, {0}});  // only the tail goes: nothing moves
  host ctx;
  CHECK(compact(ctx, s.view(), s.keep).moves().moves() == 0);
}

TEST_CASE("bad input: what a refused call was to fill is taken by no verb") {
  scene s;
  host ctx, other;
  auto const policy = presets::streaming_llm({.sinks = 2});
  keep_set keep = plan(ctx, policy, contents(s.view()), {.tokens_per_head = 5});
  auto moves = plan_moves(ctx, s.view(), keep);
  auto const before = s.cache.snapshot();
  CHECK(contains(refusal([&] { plan(ctx, policy, contents(s.view()), {.tokens_per_head = -1}, keep); }), "; "));
  std::string const remedy = "was refused or has failed, so that it names no tokens; plan again, or keep all";
  for (compaction const mode : {compaction::stable, compaction::fill_holes}) {
    CHECK(contains(refusal([&] { compact(other, s.view(), keep, mode); }), remedy));
    CHECK(contains(refusal([&] { plan_moves(other, s.view(), keep, mode); }), remedy));
  }
  CHECK(contains(refusal([&] { replace(other, s.view(), keep); }), remedy));
  CHECK(contains(refusal([&] { keep(0, 0); }), remedy));
  CHECK(contains(refusal([&] { keep.is_identity(); }), remedy));
  CHECK(!refusal([&] { plan_moves(ctx, s.view(), keep, compaction::stable, moves); }).empty());
  CHECK(contains(refusal([&] { kvevict::apply(ctx, s.view(), moves); }), "names no moves; plan again, or keep all"));
  CHECK(s.cache.snapshot() == before);
  plan(ctx, policy, contents(s.view()), {.tokens_per_head = 5}, keep);
  CHECK(compact(other, s.view(), keep).length(0, 0) == 5);
}

TEST_CASE("bad input: a result is no other view's") {
  scene s;
  host ctx;
  auto const done = compact(ctx, s.view(), keep_of(s.view(), {{0, 1}, {0, 1}, {0}, {0}}));
  auto const dropped = drop_pages(ctx, s.view(), keep_of(s.view(), std::vector<std::vector<std::int32_t>>(4)));
  auto more = s.view(), fewer = s.view(), other = s.view();
  ++more.pages.sequences, --fewer.pages.sequences, other.pages.sequences = 4, other.pages.heads = 1;
  for (auto const& view : {more, fewer, other}) {
    CHECK(contains(refusal([&] { done.view(view); }), "give the one that was compacted"));
    CHECK(contains(refusal([&] { dropped.view(view); }), "give the view that was provided"));
  }
  auto apart = s.view();
  apart.pages.head_stride = 1;  // as many rows, but others of the table
  CHECK(contains(refusal([&] { dropped.view(apart); }), "4 of the page table, the result 4 and 2"));
}

TEST_CASE("bad input: results of calls that were refused") {
  scene s;
  host ctx;
  auto done = compact(ctx, s.view(), keep_of(s.view(), {{0, 1}, {0, 1}, {0}, {0}}));
  CHECK(done.ok());
  CHECK(!refusal([&] { compact(ctx, s.view(), s.keep, static_cast<compaction>(7), done); }).empty());
  CHECK_FALSE(done.ok());
  std::string const remedy = "there is no result; ";
  CHECK(contains(refusal([&] { done.lengths(); }), remedy));
  CHECK(contains(refusal([&] { done.length(0, 0); }), remedy));
  CHECK(contains(refusal([&] { done.freed_pages(); }), remedy));
  CHECK(contains(refusal([&] { done.freed_pages(0); }), remedy));
  CHECK(contains(refusal([&] { done.order(); }), remedy));
  CHECK(contains(refusal([&] { done.bytes_moved(); }), remedy));
  CHECK(contains(refusal([&] { done.moves(); }), remedy));
  replaced slots;
  CHECK(contains(refusal([&] { slots.slots(); }), "there is no result"));
  CHECK(!refusal([&] { replace(ctx, s.view(), s.keep, slots); }).empty());
  CHECK(contains(refusal([&] { slots.slot(0, 0); }), "there is no result"));
}

TEST_CASE("bad input: plans that are stale although every length is as it was") {
  for (layout const l : {layout::nhd, layout::csr, layout::head_pages}) {
    scene s(l);
    host ctx;
    s.view().epoch = 3;
    auto const policy = presets::streaming_llm({.sinks = 2});
    keep_set const keep = plan(ctx, policy, contents(s.view()), {.tokens_per_head = 5});
    move_plan const moves = plan_moves(ctx, s.view(), keep);
    std::vector<std::byte> stored;  // on its way through a file
    write(keep, stored);
    std::int64_t used = 0;
    keep_set const read = read_keep_set({stored.data(), static_cast<std::int64_t>(stored.size())}, &used);
    auto const before = s.cache.snapshot();
    auto const refused = [&](std::string const& start, std::string const& end) {
      for (keep_set const& k : {keep, read}) {
        CHECK(contains(refusal([&] { compact(ctx, s.view(), k); }), "compact: the " + start + "keep set" + end));
        CHECK(contains(refusal([&] { plan_moves(ctx, s.view(), k); }), "plan_moves: the " + start + "keep set" + end));
        CHECK(contains(refusal([&] { replace(ctx, s.view(), k); }), "replace: the " + start + "keep set" + end));
      }
      CHECK(
          contains(refusal([&] { kvevict::apply(ctx, s.view(), moves); }), "apply: the " + start + "move plan" + end));
      CHECK(s.cache.snapshot() == before);
    };
    s.view().epoch = 4;  // a step was aborted, and another one has written as many tokens
    refused("", " was planned in epoch 3 and the view is of epoch 4; plan again");
    s.view().epoch = 3;
    std::swap(s.cache.entries()[0], s.cache.entries()[1]);  // preempted, and back in other pages
    refused("pages of the view are not those that the ", " was planned on; plan again");
    // a weak mix gives ids 33, 1121 and 895, 259 one sum
    auto const hash_of = [&](std::int32_t first, std::int32_t second) {
      s.cache.entries()[0] = first, s.cache.entries()[1] = second;
      return table_hash(s.view());
    };
    std::int32_t const was[] = {s.cache.entries()[0], s.cache.entries()[1]};
    CHECK(hash_of(33, 1121) != hash_of(895, 259));
    hash_of(was[0], was[1]);
    keep_set moved = keep;
    moved.made_for.table = 0;  // the engine knows better
    CHECK(compact(ctx, s.view(), moved).length(0, 0) == 5);
    std::swap(s.cache.entries()[0], s.cache.entries()[1]);
    s.cache.restore(before);
    CHECK(compact(ctx, s.view(), read).length(0, 0) == 5);
    s.cache.restore(before);
    CHECK(kvevict::apply(ctx, s.view(), moves).length(0, 0) == 5);
  }
}
TEST_CASE("bad input: entries behind the last page in use may change between plan and compact") {
  scene s;
  host ctx;
  keep_set const keep = plan(ctx, presets::streaming_llm({.sinks = 2}), contents(s.view()), {.tokens_per_head = 5});
  std::int64_t const columns = s.view().pages.columns;
  REQUIRE(columns == 3);
  REQUIRE(s.view().length(1, 0) == 7);  // two pages of four
  s.cache.entries()[static_cast<std::size_t>(columns + 2)] = 12345;
  CHECK(compact(ctx, s.view(), keep).length(0, 0) == 5);
}

TEST_CASE("bad input: plan of another cache") {
  expect_plan_refused("use the view that was planned on", [](scene&, move_plan& p) { p.heads = 1; });
  expect_plan_refused("plan again", [](scene&, move_plan& p) { p.lengths_before[1] = 9; });
}
TEST_CASE("bad input: plan whose arrays do not fit") {
  expect_plan_refused("do not describe its moves", [](scene&, move_plan& p) { p.row_begin.pop_back(); });
  expect_plan_refused("do not describe its moves", [](scene&, move_plan& p) { p.destinations.pop_back(); });
  expect_plan_refused("do not describe its moves", [](scene&, move_plan& p) { p.row_begin[1] = 99; });
}
TEST_CASE("bad input: plan with moves out of range") {
  expect_plan_refused("move 2 of sequence 0, head 0 is 10 to 3", [](scene&, move_plan& p) { p.sources[2] = 10; });
  expect_plan_refused("is 2 to -1", [](scene&, move_plan& p) { p.destinations[0] = -1; });
  expect_plan_refused("is 9 to 4", [](scene&, move_plan& p) { p.destinations[2] = 4; });
}
TEST_CASE("bad input: plan that overwrites what it still needs") {
  // written twice
  expect_plan_refused("must ascend", [](scene&, move_plan& p) { p.destinations[1] = 1; });
  // read after written
  expect_plan_refused("must ascend", [](scene&, move_plan& p) { std::swap(p.sources[0], p.sources[1]); });
  expect_plan_refused("lie below their sources", [](scene&, move_plan& p) { p.sources[0] = p.destinations[0]; });
}
TEST_CASE("bad input: plan that has a token twice, in place of another") {
  auto const moves = [](std::vector<std::int32_t> from, std::vector<std::int32_t> to, std::int32_t length) {
    return [=](scene&, move_plan& p) {
      p.sources = from, p.destinations = to;
      auto const n = static_cast<std::int64_t>(from.size());
      p.row_begin = {0, n, n, n, n}, p.lengths = {length, 10, 7, 7}, p.order = row_order::scattered;
    };
  };
  expect_plan_refused("sequence 0, head 0 would hold token 9 twice, in slots 9 and 0", moves({9}, {0}, 10));
  expect_plan_refused("would hold token 5 twice, in slots 5 and 1", moves({5, 8}, {1, 4}, 8));
  expect_plan_refused("would hold token 6 twice, in slots 6 and 2", moves({6, 7, 9}, {2, 3, 5}, 8));
  // a later one fills another slot
  expect_plan_refused("would hold token 5 twice, in slots 5 and 1", moves({5, 8, 9}, {1, 4, 7}, 8));
  scene s(layout::head_pages);
  host ctx;
  auto plan = plan_moves(ctx, s.view(), s.keep);
  moves({5, 8}, {1, 5}, 8)(s, plan);  // the hole that the first leaves is filled by the second
  CHECK(kvevict::apply(ctx, s.view(), plan).length(0, 0) == 8);
}
TEST_CASE("bad input: plan with lengths that cannot be") {
  expect_plan_refused("would have 11 tokens", [](scene&, move_plan& p) { p.lengths[0] = 11; });
  expect_plan_refused("would have -1 tokens", [](scene&, move_plan& p) { p.lengths[0] = -1; });
  expect_plan_refused(
      "share a page table",
      [](scene&, move_plan& p) {
        p.lengths[1] = 5;
        p.order = row_order::scattered;
      },
      layout::nhd);
}
TEST_CASE("bad input: plan that writes a read-only prefix") {
  expect_plan_refused("read-only tokens", [](scene& s, move_plan&) {
    s.read_only = {4, 0};
    s.view().read_only = s.read_only.data();
  });
}
TEST_CASE("bad input: plan that hides what it does to the order") {
  auto const to_holes = [](scene& s, move_plan& p) {
    host ctx;
    p = plan_moves(ctx, s.view(), s.keep, compaction::fill_holes);
    p.order = row_order::ascending;
  };
  expect_plan_refused("set move_plan::order to scattered", to_holes);
  expect_plan_refused("moving does not sort", [](scene& s, move_plan&) { s.view().order = row_order::scattered; });
}
TEST_CASE("bad input: plan on common positions with different moves") {
  expect_plan_refused(
      "component position has one row for all heads",
      [](scene& s, move_plan&) { s.view().components[2].rows.head_stride = 0; }, layout::nhd);
}
TEST_CASE("bad input: plan that moves page-wise quantised tokens") {
  expect_plan_refused("drop_pages instead",
                      [](scene& s, move_plan&) { s.view().components[0].scope = quant_scope::page_channel; });
}

}  // namespace apply_bad_input_test
