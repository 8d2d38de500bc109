// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/compact.hpp>
#include <kvevict/threads.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"

namespace apply_compact_test {

using namespace kvevict;
using layouts::layout;
using reference::generator;

namespace {

/// Which old token must lie in each slot of a row afterwards.
std::vector<std::int32_t> expected_row(slice<std::int32_t const> kept, compaction mode) {
  std::vector<std::int32_t> out(kept.begin(), kept.end());
  if (mode == compaction::stable) return out;
  std::vector<std::int32_t> filled(out.size(), -1);
  std::vector<std::int32_t> tail;
  for (std::int32_t const t : kept)
    if (t < kept.size)
      filled[static_cast<std::size_t>(t)] = t;
    else
      tail.push_back(t);
  auto next = tail.begin();
  for (std::int32_t& t : filled)
    if (t < 0) t = *next++;
  return filled;
}

/// A hash of its arguments that every element type holds exactly.
float value(int b, int h, int t, int d) {
  auto const x = static_cast<std::uint32_t>(((b * 31 + h) * 1009 + t) * 131 + d) * 2654435761u;
  return static_cast<float>(x >> 24);
}

template <class Cache> void fill(Cache& c) {
  for (component const& k : c.view)
    if (k.what != role::position) c.fill(k, [](int b, int h, int t, int d) { return value(b, h, t, d); });
}

/// All bytes that rows in [0, length) of the view occupy afterwards, as (buffer address) → set; to see that no other
/// byte changed.
template <class Cache>
void expect_untouched_elsewhere(Cache& c, std::vector<std::vector<std::byte>> before, move_plan const& plan) {
  auto const after = c.snapshot();
  std::vector<std::vector<bool>> may(after.size());
  for (std::size_t i = 0; i < after.size(); ++i) may[i].resize(after[i].size());
  for (std::int64_t r = 0; r < plan.rows(); ++r)
    for (std::int64_t i = plan.row_begin[static_cast<std::size_t>(r)];
         i < plan.row_begin[static_cast<std::size_t>(r) + 1]; ++i)
      for (component const& k : c.view)
        for (int d = 0; d < k.width(); ++d) {
          auto const b = static_cast<int>(r / c.view.heads()), h = static_cast<int>(r % c.view.heads());
          std::byte const* const p = c.address(k, b, h, plan.destinations[static_cast<std::size_t>(i)], d);
          for (std::size_t n = 0; n < after.size(); ++n) {
            std::ptrdiff_t const at = p - c.buffer(n).data();
            if (at < 0 || at >= static_cast<std::ptrdiff_t>(after[n].size())) continue;
            for (std::ptrdiff_t e = 0; e < size_of(k.type); ++e) may[n][static_cast<std::size_t>(at + e)] = true;
          }
        }
  bool untouched = true;
  for (std::size_t n = 0; n < after.size(); ++n)
    for (std::size_t i = 0; i < after[n].size(); ++i) untouched &= may[n][i] || after[n][i] == before[n][i];
  REQUIRE(untouched);
}

template <class Cache, class Done>
void expect_compacted(Cache& c, keep_set const& keep, compaction mode, Done const& done) {
  for (int b = 0; b < c.view.sequences(); ++b)
    for (int h = 0; h < c.view.heads(); ++h) {
      auto const row = expected_row(keep(b, h), mode);
      REQUIRE(done.length(b, h) == static_cast<std::int32_t>(row.size()));
      bool right = true;
      for (std::size_t s = 0; s < row.size(); ++s)
        for (component const& k : c.view)
          for (int d = 0; d < k.width(); ++d) {
            float const want = k.what == role::position ? static_cast<float>(row[s]) : value(b, h, row[s], d);
            right &= c.get(k, b, h, static_cast<int>(s), d) == want;
          }
      REQUIRE(right);
    }
}

template <class Cache, class Done> void expect_freed(Cache& c, keep_set const& keep, Done const& done) {
  std::int64_t const P = c.view.pages.page_size;
  std::int64_t total = 0;
  for (std::int64_t t = 0; t < c.view.pages.rows(); ++t) {
    int const b = static_cast<int>(c.per_head() ? t / c.view.heads() : t),
              h = static_cast<int>(c.per_head() ? t % c.view.heads() : 0);
    auto const freed = done.freed_pages(t);
    std::size_t n = 0;
    for (std::int64_t i = 0; i * P < c.view.length(b, h) && c.kind() != layout::bnsh; ++i) {
      if (i * P < keep(b, h).size) continue;
      REQUIRE(static_cast<std::int64_t>(n) < freed.size);
      REQUIRE(freed[static_cast<std::int64_t>(n++)] == c.view.pages.entry(b, h, i));
    }
    REQUIRE(freed.size == static_cast<std::int64_t>(n));
    total += freed.size;
  }
  REQUIRE(done.freed_pages().size == total);
}

}  // namespace

TEST_CASE("compact: every layout, mode, page size and type, all components together, nothing else") {
  host ctx;
  std::uint64_t seed = 0;
  for (compaction const mode : {compaction::stable, compaction::fill_holes})
    for (std::int32_t const P : {1, 16, 64, 256})
      for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
        for (int round = 0; round < 2; ++round) {
          layouts::cache_shape shape{.lengths = {150, 0, 1, 37},
                                     .heads = 2,
                                     .page_size = P,
                                     .type = type,
                                     .state_floats = round * 3,
                                     .seed = ++seed};
          if (round == 1) shape.lengths = {90}, shape.head_dim = 40;
          layouts::for_each_layout(shape, [&](auto& c) {
            CAPTURE(c.name(), P, name_of(type), seed, static_cast<int>(mode));
            fill(c);
            generator random(seed);
            keep_set const keep = support::random_keep(random, c.view, c.per_head());
            auto const before = c.snapshot();
            auto const done = compact(ctx, c.view, keep, mode);
            expect_compacted(c, keep, mode, done);
            expect_untouched_elsewhere(c, before, done.moves());
            expect_freed(c, keep, done);
            std::int64_t bytes = 0;
            for (component const& k : c.view) bytes += k.rows.row_bytes();
            REQUIRE(done.bytes_moved() == bytes * done.moves().moves());
          });
        }
}

TEST_CASE("compact: heads with lengths of their own, on tables of their own") {
  host ctx;
  for (layout const l : {layout::head_blocks, layout::head_pages, layout::bnsh})
    for (compaction const mode : {compaction::stable, compaction::fill_holes})
      for (std::uint64_t seed = 0; seed < 5; ++seed)
        layouts::with_layout(l, {.lengths = {0, 0}, .head_lengths = {40, 7, 0, 33, 2, 19}, .heads = 3, .seed = seed},
                             [&](auto& c) {
                               CAPTURE(c.name(), seed, static_cast<int>(mode));
                               fill(c);
                               generator random(seed);
                               keep_set const keep = support::random_keep(random, c.view, true);
                               auto const done = compact(ctx, c.view, keep, mode);
                               expect_compacted(c, keep, mode, done);
                               expect_freed(c, keep, done);
                             });
}

TEST_CASE("compact: a shared prefix is neither moved nor written, and its pages are not freed") {
  host ctx;
  for (compaction const mode : {compaction::stable, compaction::fill_holes})
    for (std::uint64_t seed = 0; seed < 20; ++seed)
      for (layout const l : {layout::nhd, layout::csr, layout::pointers})
        layouts::with_layout(l, {.lengths = {37, 21, 9}, .seed = seed}, [&](auto& c) {
          CAPTURE(c.name(), seed);
          std::int32_t const read_only[] = {8, 8, 9};
          auto const first = [&](int b, int i) -> auto& {
            return c.entries()[static_cast<std::size_t>(c.view.pages.row_begin == nullptr
                                                            ? b * c.view.pages.seq_stride
                                                            : c.row_begin()[static_cast<std::size_t>(b)]) +
                               static_cast<std::size_t>(i)];
          };
          first(1, 0) = first(0, 0), first(1, 1) = first(0, 1);
          fill(c);
          auto const view = c.view = c.view.with_read_only(read_only);
          generator random(seed);
          keep_set const keep = support::random_keep(random, view, false);
          auto const before = c.snapshot();
          auto const done = compact(ctx, view, keep, mode);
          expect_untouched_elsewhere(c, before, done.moves());
          for (std::int32_t const to : done.moves().destinations) REQUIRE(to >= 8);
          for (auto const page : done.freed_pages()) REQUIRE((page != first(0, 0) && page != first(0, 1)));
          REQUIRE(done.length(2, 0) == 9);
        });
}

TEST_CASE("compact: fill_holes makes the fewest moves, and says whether the order survived") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {10}, .heads = 1});
  auto const plan = [&](std::vector<std::int32_t> const& row, compaction mode) {
    return plan_moves(ctx, c.view, support::keep_of(c.view, {row}), mode);
  };
  auto p = plan({0, 1, 3, 4, 5, 9}, compaction::fill_holes);
  CHECK(p.sources == std::vector<std::int32_t>{9});
  CHECK(p.destinations == std::vector<std::int32_t>{2});
  CHECK(p.order == row_order::scattered);
  p = plan({0, 1, 3, 4, 5, 9}, compaction::stable);
  CHECK(p.sources == std::vector<std::int32_t>{3, 4, 5, 9});
  CHECK(p.destinations == std::vector<std::int32_t>{2, 3, 4, 5});
  CHECK(p.order == row_order::ascending);
  CHECK(plan({0, 1, 2, 8, 9}, compaction::fill_holes).order == row_order::ascending);
  CHECK(plan({0, 1, 2}, compaction::fill_holes).moves() == 0);
  CHECK(plan({0, 1, 2}, compaction::fill_holes).order == row_order::ascending);
  CHECK(plan({}, compaction::stable).moves() == 0);
  c.view.order = row_order::scattered;
  CHECK(plan({0, 1, 2}, compaction::stable).order == row_order::scattered);
}

TEST_CASE("compact: positions common to all heads move once, when the heads agree") {
  for (compaction const mode : {compaction::stable, compaction::fill_holes}) {
    layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {20}, .heads = 3, .positions = 0});
    std::vector<std::int32_t> positions(static_cast<std::size_t>(c.view.begin()->rows.page_count * 4));
    component p;
    p.rows = {reinterpret_cast<std::byte*>(positions.data()), 0, c.view.begin()->rows.page_count, 16, 0, 4, 0, 4, 1};
    p.type = dtype::i32, p.what = role::position;
    auto const view = c.view.with(p);
    for (int t = 0; t < 20; ++t) element<std::int32_t>(view, p, 0, 0, t) = t * 3;
    host ctx;
    std::vector<std::int32_t> const row{0, 2, 3, 7, 11, 18, 19};
    auto const done = compact(ctx, view, support::keep_of(view, {row, row, row}), mode);
    for (std::size_t s = 0; s < row.size(); ++s)
      CHECK(element<std::int32_t>(view, p, 0, 2, static_cast<int>(s)) == expected_row({row.data(), 7}, mode)[s] * 3);
    std::int64_t const kv = 2 * 3 * 64;
    CHECK(done.bytes_moved() == done.moves().moves() / 3 * (kv + 4));
  }
}

TEST_CASE("compact: nothing to evict, no tokens, no sequences") {
  host ctx;
  layouts::for_each_layout({.lengths = {9, 0}}, [&](auto& c) {
    auto const before = c.snapshot();
    std::vector<std::int32_t> const all{0, 1, 2, 3, 4, 5, 6, 7, 8};
    auto done = compact(ctx, c.view, support::keep_of(c.view, {all, all, {}, {}}));
    CHECK(done.moves().moves() == 0);
    CHECK(done.bytes_moved() == 0);
    CHECK(done.freed_pages().empty());
    CHECK(c.snapshot() == before);
    done = compact(ctx, c.view, support::keep_of(c.view, {{}, {}, {}, {}}), compaction::fill_holes);
    CHECK(done.lengths()[0] == 0);
    CHECK(c.snapshot() == before);
  });
  layer_view<> none;
  none.pages.heads = 8, none.pages.page_size = 16, none.component_count = 1;
  keep_set keep;
  keep.heads = 8, keep.row_begin = {0};
  CHECK(compact(ctx, none, keep).freed_pages().empty());
}

TEST_CASE("compact: threads move what one thread moves, and no call after the first allocates") {
  threads pool(4);
  host serial, threaded(pool.as_executor(0));
  for (compaction const mode : {compaction::stable, compaction::fill_holes})
    layouts::for_each_layout({.lengths = {150, 37, 64}, .heads = 4, .page_size = 16, .state_floats = 2}, [&](auto& c) {
      CAPTURE(c.name());
      fill(c);
      generator random(5);
      keep_set const keep = support::random_keep(random, c.view, c.per_head());
      auto const before = c.snapshot();
      auto done = compact(serial, c.view, keep, mode);
      auto const moved = c.snapshot();
      for (host* ctx : {&serial, &threaded}) {
        c.restore(before);
        compact(*ctx, c.view, keep, mode, done);
        auto const count = allocations();
        compact(*ctx, c.view, keep, mode, done);
        CHECK(allocations() == count);
        c.restore(before);
        compact(*ctx, c.view, keep, mode, done);
        CHECK(c.snapshot() == moved);
      }
    });
}

TEST_CASE("apply: an inspected plan does what compact does") {
  host ctx;
  for (compaction const mode : {compaction::stable, compaction::fill_holes})
    layouts::for_each_layout({.lengths = {50, 3}}, [&](auto& c) {
      CAPTURE(c.name());
      fill(c);
      generator random(11);
      keep_set const keep = support::random_keep(random, c.view, c.per_head());
      auto const before = c.snapshot();
      auto const plan = plan_moves(ctx, c.view, keep, mode);
      CHECK(c.snapshot() == before);
      auto const done = kvevict::apply(ctx, c.view, plan);
      expect_compacted(c, keep, mode, done);
      expect_freed(c, keep, done);
    });
}

}  // namespace apply_compact_test
