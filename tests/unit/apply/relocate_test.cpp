// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/relocate.hpp>

#include <algorithm>
#include <new>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"
#include "support/ledger.hpp"
#include "support/stack.hpp"

namespace apply_relocate_test {

using namespace kvevict;
using layouts::layout;
using reference::generator;
using support::contains, support::keep_of, support::ledger, support::refusal;

namespace {

/// A reference for every page in use; those that the table has behind them are free.
template <class Entry> ledger<Entry> ledger_of(layer_view<Entry> const& v) {
  ledger<Entry> out;
  moves::table_rows const rows(v.pages);
  for (std::int64_t r = 0; r < v.rows(); ++r) {
    if (rows.first(v.pages, r) != r) continue;
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    for (std::int64_t i = 0; i < v.pages.capacity(b, h) / v.pages.page_size; ++i) {
      Entry const page = v.pages.entry(b, h, i);
      if (i * v.pages.page_size < v.length(b, h))
        ++out.count[page];
      else if (page >= Entry{})  // dense rows end in −1
        out.free.push_back(page);
    }
  }
  return out;
}

template <class Entry> std::vector<Entry> list(slice<Entry const> x) { return {x.begin(), x.end()}; }

float value(int b, int h, int t, int d) {
  auto const x = static_cast<std::uint32_t>(((b * 31 + h) * 1009 + t) * 131 + d) * 2654435761u;
  return static_cast<float>(x >> 24);
}
template <class Cache> void fill(Cache& c) {
  for (component const& k : c.view)
    if (k.what != role::position) c.fill(k, value);
}

/// All components of every row, read by `view`, are those of the kept tokens.
template <class Cache, class View> bool holds(Cache& c, View const& view, keep_set const& keep) {
  auto const was = c.view;
  c.view = view;
  bool right = true;
  for (int b = 0; b < view.sequences(); ++b)
    for (int h = 0; h < view.heads(); ++h) {
      right = right && view.length(b, h) == keep(b, h).size;
      for (int s = 0; right && s < view.length(b, h); ++s)
        for (component const& k : view)
          for (int d = 0; d < k.width(); ++d) {
            int const t = keep(b, h)[s];
            right =
                right && c.get(k, b, h, s, d) == (k.what == role::position ? static_cast<float>(t) : value(b, h, t, d));
          }
    }
  c.view = was;
  return right;
}

}  // namespace

TEST_CASE("relocate: where all pages are a row's own it is compact, in every layout") {
  host ctx;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    for (layout const l : layouts::all) {
      if (l == layout::bnsh) continue;
      layouts::with_layout(l, {.lengths = {50, 0, 1, 37}, .heads = 2, .state_floats = 3, .seed = seed}, [&](auto& c) {
        CAPTURE(c.name(), seed);
        fill(c);
        generator random(seed);
        keep_set const keep = support::random_keep(random, c.view, c.per_head());
        auto const before = c.snapshot();
        auto const compacted = compact(ctx, c.view, keep);
        auto const after = c.snapshot();
        c.restore(before);
        auto pages = ledger_of(c.view);
        auto const done = relocate(ctx, c.view, keep, pages);
        CHECK(c.snapshot() == after);
        CHECK(list(done.released()) == list(compacted.freed_pages()));
        CHECK(list(done.lengths()) == list(compacted.lengths()));
        CHECK(done.bytes_moved() == compacted.bytes_moved());
        CHECK(done.acquired().empty());
        CHECK(holds(c, done.view(c.view), keep));
      });
    }
}

TEST_CASE("relocate: pages that are shared or published stay as they are, in every layout") {
  host ctx;
  std::int64_t fresh = 0;
  for (std::uint64_t seed = 0; seed < 6; ++seed)
    for (layout const l : layouts::all) {
      if (l == layout::bnsh) continue;
      layouts::with_layout(l, {.lengths = {50, 0, 9}, .heads = 2, .spare_tokens = 50, .state_floats = 2, .seed = seed},
                           [&](auto& c) {
                             CAPTURE(c.name(), seed);
                             fill(c);
                             generator random(seed);
                             keep_set const keep = support::random_keep(random, c.view, c.per_head());
                             auto pages = ledger_of(c.view);
                             for (auto& [page, count] : pages.count) {
                               if (random.below(4) == 0) ++count;
                               if (random.below(4) == 0) pages.hash.insert(page);
                             }
                             auto const was = pages;
                             std::vector<std::vector<float>> guards;
                             auto const guard = [&](std::vector<std::vector<float>>& out) {
                               c.for_each_slot([&](int b, int h, int t) {
                                 if (was.writable(c.view.pages.entry(b, h, t / c.view.pages.page_size))) return;
                                 std::vector<float> row;
                                 for (component const& k : c.view)
                                   for (int d = 0; d < k.width(); ++d) row.push_back(c.get(k, b, h, t, d));
                                 out.push_back(row);
                               });
                             };
                             guard(guards);
                             auto const done = relocate(ctx, c.view, keep, pages);
                             std::vector<std::vector<float>> after;
                             guard(after);
                             CHECK(guards == after);
                             CHECK(holds(c, done.view(c.view), keep));
                             validate(done.view(c.view));
                             for (auto const page : done.acquired()) CHECK(pages.references(page) == 1);
                             for (auto const page : done.released())
                               CHECK(pages.references(page) == was.references(page) - 1);
                             fresh += done.acquired().size;
                           });
    }
  CHECK(fresh > 100);
}

TEST_CASE("relocate: a page stays while it is full and unchanged, one that is cut only where it is one's own") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {14}, .heads = 1, .spare_tokens = 8});
  fill(c);
  auto const whole = c.snapshot();
  auto const e = c.entries();  // tokens 0-3 4-7 8-11 12-13
  auto const table = [&](std::vector<std::int32_t> const& row, std::set<std::int32_t> const& published) {
    c.restore(whole);
    auto pages = ledger_of(c.view);
    for (std::int32_t const i : published) pages.hash.insert(e[static_cast<std::size_t>(i)]);
    auto const keep = keep_of(c.view, {row});
    auto const done = relocate(ctx, c.view, keep, pages);
    CHECK(holds(c, done.view(c.view), keep));
    std::vector<std::int32_t> out;
    for (std::int32_t const page : done.entries()) {
      auto const at = std::find(e.begin(), e.begin() + 4, page) - e.begin();
      out.push_back(at < 4 ? static_cast<std::int32_t>(at) : -1);
    }
    return out;
  };
  using places = std::vector<std::int32_t>;
  std::set<std::int32_t> const all{0, 1, 2, 3};
  std::vector<std::int32_t> everything;
  for (std::int32_t t = 0; t < 14; ++t) everything.push_back(t);
  CHECK(table(everything, all) == places{0, 1, 2, 3});
  CHECK(table({0, 1, 2, 3, 4, 5, 6, 7}, all) == places{0, 1});
  CHECK(table({0, 1, 2, 3, 4, 5}, all) == places{0, -1});  // the next token would be written behind the cut
  CHECK(table({0, 1, 2, 3, 4, 5}, {0, 2, 3}) == places{0, 1});
  CHECK(table({0, 1, 2, 3, 8, 9}, {0, 2, 3}) == places{0, 1});  // into its own page 1
  CHECK(table({0, 1, 2, 3, 8, 9}, all) == places{0, -1});
  CHECK(table({1, 2, 3, 4, 8, 9}, {}) == places{0, 1});
  CHECK(table({1, 2, 3, 4, 8, 9}, {0}) == places{-1, 1});
  CHECK(table({}, all) == places{});
}

TEST_CASE("relocate: stacks, with one table for all layers or their own") {
  using support::placed;
  host ctx;
  auto const in = support::random_batch(5, {.Hq = 2, .H = 2, .D = 8, .N = {30, 17, 30, 17, 30, 17}});
  for (placed const how : {placed::layers_apart, placed::layer_in_page, placed::own_tables})
    for (bool const per_head : {false, true}) {
      CAPTURE(static_cast<int>(how), per_head);
      support::stack s(in, 3, how, per_head);
      auto view = s.whole();
      generator random(6);
      std::vector<std::vector<std::int32_t>> rows;
      for (int b = 0; b < 6; ++b)
        for (int h = 0; h < 2; ++h) rows.push_back(support::random_row(random, view.length(b, h), b % 2 == 0 ? 18 : 5));
      keep_set const keep = keep_of(view, rows);
      auto pages = ledger_of(view);
      for (std::int32_t page = 0; page < s.pages; ++page)
        if (pages.references(page) == 0) pages.free.push_back(page);
      pages.hash.insert(view.pages.entry(0, 0, 2));
      std::vector<std::vector<std::byte>> wanted, got;
      auto const read = [&](layer_view<> const& v, auto token, std::vector<std::vector<std::byte>>& out) {
        for (int b = 0; b < 6; ++b)
          for (int h = 0; h < 2; ++h)
            for (std::int64_t i = 0; i < keep(b, h).size; ++i)
              for (component const& k : v) {
                std::byte const* const p = v.row(k, b, h, token(b, h, i));
                out.emplace_back(p, p + k.rows.row_bytes());
              }
      };
      read(
          view, [&](int b, int h, std::int64_t i) { return std::int64_t{keep(b, h)[i]}; }, wanted);
      auto const published = [&] {
        std::vector<std::byte> out;
        for (int l = 0; l < 3; ++l)
          for (int t = 8; t < 12; ++t)
            for (component const& k : view)
              if (how != placed::own_tables || l == 0)
                out.insert(out.end(), view.row(k, l * 2, 0, t), view.row(k, l * 2, 0, t) + k.rows.row_bytes());
        return out;
      };
      auto const guard = published();
      auto const done = relocate(ctx, view, keep, pages);
      CHECK(published() == guard);
      CHECK(done.acquired().size == 1);
      CHECK(done.rows() == (how == placed::own_tables ? 6 : 2) * (per_head ? 2 : 1));
      auto const after = done.view(view);
      validate(after);
      read(
          after, [](int, int, std::int64_t i) { return i; }, got);
      CHECK(got == wanted);
      if (how != placed::own_tables) {
        std::vector<std::int32_t> dense(s.table);
        done.write_dense(view.pages, dense.data());
        auto own = after;
        own.pages = view.pages, own.pages.entries = dense.data();
        got.clear(), read(
                         own, [](int, int, std::int64_t i) { return i; }, got);
        CHECK(got == wanted);
        rows[2 * 2].pop_back(), rows[2 * 2 + 1].pop_back();  // layer 1 keeps fewer
        auto again = ledger_of(view);
        CHECK(contains(refusal([&] { relocate(ctx, view, keep_of(view, rows), again); }), "by one page table"));
      }
    }
}

TEST_CASE("relocate: rows that heads share move once, aliases not at all") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {20}, .heads = 2, .spare_tokens = 8});
  auto view = c.view;
  view.components[2].rows.head_stride = 0;  // positions
  view.components[1] = view.components[0], view.components[1].what = role::v, view.components[1].alias_of = 0;
  std::vector<std::int32_t> const row{0, 2, 3, 7, 11, 18, 19}, other{0, 2, 3, 7, 12, 18, 19};
  auto pages = ledger_of(view);
  pages.hash.insert(view.pages.entry(0, 0, 0));
  auto const before = pages;
  CHECK(contains(refusal([&] {
                   relocate(ctx, view, keep_of(view, {row, other}), pages);
                 }),
                 "component position has one row for all heads"));
  CHECK(pages == before);
  auto const done = relocate(ctx, view, keep_of(view, {row, row}), pages);
  CHECK(done.bytes_moved() == 7 * (2 * 64 + 4));  // all of page 0, and three tokens in page 1
  CHECK(done.acquired().size == 1);
  auto const after = done.view(view);
  for (int s = 0; s < 7; ++s)
    CHECK(element<std::int32_t>(after, after.components[2], 0, 1, s) == row[static_cast<std::size_t>(s)]);
}

TEST_CASE("relocate: forks in one view share pages, and a common prefix stays") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::csr, {.lengths = {10, 11}, .heads = 2, .spare_tokens = 12});
  fill(c);
  auto const begin = static_cast<std::size_t>(c.row_begin()[1]);
  for (std::size_t i = 0; i < 2; ++i) c.entries()[begin + i] = c.entries()[i];  // 8 tokens in common
  fill(c);
  CHECK(contains(refusal([&] { validate(c.view); }), "would be written by both"));
  std::vector<std::int32_t> const a{0, 1, 2, 3, 6, 9}, b{0, 1, 2, 3, 4, 5, 6, 7, 8, 10};
  auto const keep = keep_of(c.view, {a, a, b, b});
  auto pages = ledger_of(c.view);
  std::vector<std::int32_t> const e = c.entries();
  auto wrong = pages;
  wrong.count[e[0]] = 1;
  CHECK(contains(refusal([&] { relocate(ctx, c.view, keep, wrong); }), "2 rows of the table name page"));
  auto const done = relocate(ctx, c.view, keep, pages);
  CHECK(done.entries(0)[0] == e[0]);
  CHECK(done.entries(0)[1] == done.acquired()[0]);
  CHECK(list(done.entries(1)) == std::vector<std::int32_t>{e[begin], e[begin + 1], e[begin + 2]});
  CHECK(list(done.released()) == std::vector<std::int32_t>{e[1], e[2]});
  CHECK(pages.references(e[0]) == 2);
  CHECK(pages.references(e[1]) == 1);
  CHECK(pages.references(e[2]) == 0);
  std::int32_t const read_only[] = {8, 8};
  CHECK(contains(refusal([&] { relocate(ctx, c.view.with_read_only(read_only), keep, pages); }), "read-only prefix"));
  std::int32_t const crooked[] = {3, 8};
  CHECK(contains(refusal([&] { relocate(ctx, c.view.with_read_only(crooked), keep, pages); }), "read_only[0] = 3"));
}

TEST_CASE("relocate: without enough fresh pages nothing changes, and what was taken is given back") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {20}, .heads = 2, .spare_tokens = 4});
  fill(c);
  auto pages = ledger_of(c.view);
  for (auto const& [page, count] : pages.count) pages.hash.insert(page);
  REQUIRE(pages.free.size() == 1);
  std::vector<std::int32_t> const row{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};  // three pages
  auto const keep = keep_of(c.view, {row, row});
  auto const before = c.snapshot();
  auto const was = pages;
  relocated<std::int32_t> done;
  relocate(ctx, c.view, keep, pages, done);
  CHECK_FALSE(done.ok());
  CHECK(done.missing_pages() == 2);
  CHECK(contains(refusal([&] { done.lengths(); }), "lacked pages"));
  CHECK(pages == was);
  CHECK(c.snapshot() == before);
  pages.hash.erase(c.view.pages.entry(0, 0, 1)), pages.hash.erase(c.view.pages.entry(0, 0, 2));
  relocate(ctx, c.view, keep, pages, done);
  CHECK(done.ok());
  CHECK(done.missing_pages() == 0);
  CHECK(holds(c, done.view(c.view), keep));
}

TEST_CASE("relocate: tag bits stay in the table, a ledger sees none") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {12}, .heads = 1, .spare_tokens = 8});
  auto pages = ledger_of(c.view);
  auto const plain = c.entries();
  for (std::int32_t& e : c.entries()) e |= 1 << 30;
  c.view.pages.index_mask = (1 << 30) - 1;
  pages.hash.insert(plain[1]);
  auto const fresh = pages.free.back();
  auto const done = relocate(ctx, c.view, keep_of(c.view, {{0, 1, 2, 3, 5, 6}}), pages);
  CHECK(list(done.entries()) == std::vector<std::int32_t>{plain[0] | 1 << 30, fresh});
  CHECK(list(done.released()) == std::vector<std::int32_t>{plain[1], plain[2]});
}

TEST_CASE("relocate: turn by turn with one result, whose table is the next view's") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::csr, {.lengths = {60, 40}, .heads = 2, .page_size = 4, .spare_tokens = 40});
  fill(c);
  generator random(2);
  auto pages = ledger_of(c.view);
  auto view = c.view;
  relocated<std::int32_t> done;
  std::vector<std::vector<std::int32_t>> tokens;
  for (int r = 0; r < 4; ++r) {
    tokens.emplace_back();
    for (int t = 0; t < view.length(r / 2, 0); ++t) tokens.back().push_back(t);
  }
  for (int turn = 0; turn < 5; ++turn) {
    for (auto const& [page, count] : pages.count)
      if (count == 1 && random.below(3) == 0) pages.hash.insert(page);
    std::vector<std::vector<std::int32_t>> rows;
    for (int r = 0; r < 4; ++r) {
      std::int32_t const n = view.length(r / 2, 0);
      rows.push_back(support::random_row(random, n, n * 3 / 4));
      std::vector<std::int32_t> next;
      for (std::int32_t const t : rows.back())
        next.push_back(tokens[static_cast<std::size_t>(r)][static_cast<std::size_t>(t)]);
      tokens[static_cast<std::size_t>(r)] = next;
    }
    relocate(ctx, view, keep_of(view, rows), pages, done);
    REQUIRE(done.ok());
    view = done.view(view);
    CHECK(holds(c, view, keep_of(view, tokens)));
  }
}

TEST_CASE("relocate: a wrong ledger, a wrong cache and a wrong keep set are refused, and nothing is taken") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {12, 12}, .heads = 2, .spare_tokens = 8});
  fill(c);
  auto const right = ledger_of(c.view);
  std::vector<std::int32_t> const row{1, 2, 3, 5, 6};
  auto const keep = keep_of(c.view, {row, row, row, row});
  auto const before = c.snapshot();
  relocated<std::int32_t> done;
  auto const says = [&](layer_view<> const& view, keep_set const& set, ledger<std::int32_t> pages) {
    auto const was = pages;
    std::string const text = refusal([&] { relocate(ctx, view, set, pages, done); });
    CHECK_FALSE(done.ok());
    CHECK(c.snapshot() == before);
    std::int64_t taken = 0;  // a wrong ledger need not look the same
    for (auto const& [page, count] : pages.count) taken += count - was.references(page);
    CHECK(taken == 0);
    return text;
  };
  auto const e = c.entries();
  auto wrong = right;
  wrong.count[e[2]] = 0;
  CHECK(contains(says(c.view, keep, wrong),
                 "1 rows of the table name page " + std::to_string(e[2]) + ", but the ledger counts 0 references"));
  auto published = right;
  for (auto const& [page, count] : right.count) published.hash.insert(page);
  wrong = published;
  wrong.free.back() = 999;
  CHECK(contains(says(c.view, keep, wrong), "the ledger gives page 999, which is not in the pool"));
  wrong.free.back() = -1;
  CHECK(contains(says(c.view, keep, wrong), "the ledger gives page -1, which is not in the pool"));
  wrong = published;
  wrong.free.back() = wrong.free[wrong.free.size() - 2];
  CHECK(contains(says(c.view, keep, wrong), "that is in use; acquire() must give pages"));

  struct careless : ledger<std::int32_t> {  // gives what the view uses
    std::int32_t page;
    std::optional<std::int32_t> acquire() { return ++count[page], page; }
  };
  careless gives{published, e[2]};
  CHECK(contains(refusal([&] { relocate(ctx, c.view, keep, gives); }), "that is in use"));
  CHECK(gives.count == published.count);
  CHECK(c.snapshot() == before);
  struct throwing : ledger<std::int32_t> {
    int left = 1;
    std::optional<std::int32_t> acquire() {
      if (left-- == 0) throw std::bad_alloc();
      return ledger<std::int32_t>::acquire();
    }
  };
  throwing throws{published};
  CHECK_THROWS_AS(relocate(ctx, c.view, keep, throws), std::bad_alloc);
  CHECK(throws.free == published.free);

  CHECK(contains(says(c.view, keep_of(c.view, {row, {1, 2, 3, 5}, row, row}), right), "share a page table"));
  CHECK(contains(says(c.view, keep_of(c.view, {{2, 1}, {1, 2}, row, row}), right), "not strictly ascending"));
  auto stale = keep;
  stale.made_for.epoch = 3;
  CHECK(contains(says(c.view.with_epoch(4), stale, right), "epoch 3"));
  stale = keep, stale.refused = true;
  CHECK(contains(says(c.view, stale, right), "refused"));
  auto scaled = c.view;
  scaled.components[0].scope = quant_scope::page_channel;
  CHECK(contains(says(scaled, keep, published), "quantised per page"));
  CHECK(contains(says(c.view.with_capability({.rows_move = false}), keep, right), "rows cannot move"));
  auto wide = c.view;
  wide.components[1].rows.slot_stride = 0;  // all slots of a page are one row
  CHECK_FALSE(says(wide, keep, right).empty());
  c.entries()[1] = 500;
  CHECK(contains(says(c.view, keep, right), "has id 500"));
  layouts::cache<std::int32_t> flat(layout::bnsh, {.lengths = {12}, .heads = 2});
  auto pages = right;
  CHECK(contains(refusal([&] {
                   relocate(ctx, flat.view, keep_of(flat.view, {row, row}), pages);
                 }),
                 "relocate: a contiguous cache has no page table"));
}

TEST_CASE("relocate: a cache without a token may have no table") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {10}, .heads = 2});
  auto pages = ledger_of(c.view);
  auto const done = relocate(ctx, c.view, keep_of(c.view, {{}, {}}), pages);
  auto view = done.view(c.view);
  view.pages.entries = nullptr;
  auto const again = relocate(ctx, view, keep_of(view, {{}, {}}), pages);
  CHECK((again.ok() && again.rows() == 1 && again.entries().empty() && again.length(0, 1) == 0));
}

TEST_CASE("relocate: a fresh page whose bytes are those of others is refused, whatever its number") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {12}, .heads = 2, .spare_tokens = 8});
  for (component& k : c.view.components) k.rows.page_stride /= 2, k.rows.page_count *= 2;
  for (std::int32_t& e : c.entries()) e *= 2;  // odd ones name the second half of a page, and the first of the next
  fill(c);
  auto pages = ledger_of(c.view);
  pages.hash.insert(c.view.pages.entry(0, 0, 0));
  std::vector<std::int32_t> const row{1, 2, 3, 5, 6};
  auto const keep = keep_of(c.view, {row, row});
  auto overlapping = pages;
  std::int32_t const used = c.view.pages.entry(0, 0, 2);
  overlapping.free.push_back(used == 0 ? 1 : used - 1);
  auto const was = overlapping;
  auto const before = c.snapshot();
  CHECK(contains(refusal([&] { relocate(ctx, c.view, keep, overlapping); }), "validate: "));
  CHECK(c.snapshot() == before);
  CHECK(overlapping == was);
  CHECK(holds(c, relocate(ctx, c.view, keep, pages).view(c.view), keep));
}

TEST_CASE("relocate: no call after the first ones allocates") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {90, 70}, .heads = 2, .spare_tokens = 90});
  struct plain_ledger {  // takes no memory
    std::vector<std::int32_t> count, free;
    std::int64_t references(std::int32_t page) const { return count[static_cast<std::size_t>(page)]; }
    bool published(std::int32_t page) const { return page % 3 == 0; }
    std::optional<std::int32_t> acquire() {
      std::int32_t const page = free.back();
      free.pop_back(), count[static_cast<std::size_t>(page)] = 1;
      return page;
    }
    void release(std::int32_t page) noexcept {
      if (--count[static_cast<std::size_t>(page)] == 0) free.push_back(page);
    }
  };
  auto const of = ledger_of(c.view);
  plain_ledger first{std::vector<std::int32_t>(static_cast<std::size_t>(c.view.components[0].rows.page_count)),
                     of.free};
  for (auto const& [page, count] : of.count) first.count[static_cast<std::size_t>(page)] = 1;
  first.free.reserve(first.count.size());
  generator random(3);
  keep_set const keep = support::random_keep(random, c.view, false);
  relocated<std::int32_t> done;
  plain_ledger pages = first;
  pages.free.reserve(first.count.size());
  std::int64_t before = 0;
  for (int i = 0; i < 3; ++i) {
    pages.count = first.count, pages.free = first.free;
    before = allocations();
    relocate(ctx, c.view, keep, pages, done);
  }
  CHECK(done.acquired().size > 0);
  CHECK(allocations() == before);
}

}  // namespace apply_relocate_test
