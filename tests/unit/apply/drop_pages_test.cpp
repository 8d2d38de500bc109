// SPDX-License-Identifier: Apache-2.0
// Dropping whole pages: the table afterwards, byte by byte the same cache, and what is refused.
#include <kvevict/apply/drop_pages.hpp>

#include <algorithm>

#include "support/allocations.hpp"
#include "support/layouts.hpp"
#include "support/whole_pages.hpp"

namespace apply_drop_pages_test {

using namespace kvevict;
using layouts::layout;
using reference::generator;
using support::contains, support::keep_of, support::refusal;

namespace {

using row_of_tokens = std::vector<std::int32_t>;

/// Each page of a row of N tokens stays or goes by chance, the part-filled one, too.
row_of_tokens random_pages(generator& random, std::int32_t N, std::int32_t P) {
  row_of_tokens out;
  for (std::int32_t first = 0; first < N; first += P)
    for (std::int32_t t = first, stays = random.below(2) == 0; stays != 0 && t < std::min(N, first + P); ++t)
      out.push_back(t);
  return out;
}
template <class Cache> keep_set random_keep(generator& random, Cache const& c) {
  std::vector<row_of_tokens> rows;
  for (int b = 0; b < c.view.sequences(); ++b)
    for (int h = 0; h < c.view.heads(); ++h)
      rows.push_back(h > 0 && !c.per_head() ? rows.back()
                                            : random_pages(random, c.view.length(b, h), c.view.pages.page_size));
  return keep_of(c.view, rows);
}

template <class T> std::vector<T> list(slice<T const> x) { return {x.begin(), x.end()}; }

/// Everything that a view says of the kept tokens: bytes of all components.
template <class Entry> std::vector<std::byte> bytes_of(layer_view<Entry> const& v, keep_set const* keep) {
  std::vector<std::byte> out;
  for (component const& c : v)
    for (int b = 0; b < v.sequences(); ++b)
      for (int h = 0; h < v.heads(); ++h)
        for (std::int64_t i = 0, n = keep != nullptr ? (*keep)(b, h).size : v.length(b, h); i < n; ++i) {
          std::byte const* const p = v.row(c, b, h, keep != nullptr ? (*keep)(b, h)[i] : i);
          for (std::int32_t k = 0; k < c.rows.n_runs; ++k)
            out.insert(out.end(), p + k * c.rows.run_stride, p + k * c.rows.run_stride + c.rows.run_bytes);
        }
  return out;
}

template <class Cache> void expect_dropped(Cache& c, host& ctx, keep_set const& keep) {
  auto const before = c.snapshot();
  auto const old = c.entries();
  auto const wanted = bytes_of(c.view, &keep);
  auto const done = drop_pages(ctx, c.view, keep);
  CHECK(c.entries() == old);
  CHECK(c.snapshot() == before);
  std::int32_t const P = c.view.pages.page_size, heads = c.per_head() ? c.view.heads() : 1;
  std::vector<decltype(c.view.pages.entry(0, 0, 0))> gone;
  for (std::int64_t row = 0; row < c.view.sequences() * heads; ++row) {
    auto const b = static_cast<int>(row / heads), h = static_cast<int>(row % heads);
    std::vector<decltype(c.view.pages.entry(0, 0, 0))> stay;
    for (std::int32_t p = 0; p * P < c.view.length(b, h); ++p)
      (std::count(keep(b, h).begin(), keep(b, h).end(), p * P) != 0 ? stay : gone)
          .push_back(c.view.pages.entry(b, h, p));
    CHECK(list(done.entries(row)) == stay);
  }
  CHECK(list(done.released()) == gone);
  auto const after = done.view(c.view);
  validate(after);
  CHECK(bytes_of(after, nullptr) == wanted);
  auto own = after;  // the engine's own table, in place
  own.pages = c.view.pages;
  if (c.view.pages.row_begin == nullptr) {
    done.write_dense(c.view.pages, c.entries().data());
  } else {
    std::vector<std::int32_t> last(static_cast<std::size_t>(done.rows()));
    done.write_csr(c.row_begin().data(), last.data(), c.entries().data());
    for (int b = 0; b < c.view.sequences(); ++b) {
      std::int32_t const n = after.length(b, 0);
      CHECK(last[static_cast<std::size_t>(b)] == (n == 0 ? 0 : (n - 1) % P + 1));
    }
  }
  CHECK(bytes_of(own, nullptr) == wanted);
}

}  // namespace

TEST_CASE("drop_pages: the table names the pages that stay, in every layout, and no byte of the cache changes") {
  host ctx;
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (layout const l : layouts::all) {
      if (l == layout::bnsh) continue;
      auto const P = static_cast<std::int32_t>(1 + seed % 5);
      layouts::cache_shape shape{
          .lengths = {40, 0, 9, 16}, .heads = 2, .page_size = P, .state_floats = 1, .seed = seed};
      if (seed % 2 == 0) shape.head_lengths = {40, 33, 0, 1, 9, 8, 16, 15};
      if (l != layout::head_blocks && l != layout::head_pages) shape.head_lengths.clear();
      layouts::with_layout(l, shape, [&](auto& c) {
        CAPTURE(c.name(), seed);
        c.fill([](int b, int h, int t, int d) { return b * 7 + h * 3 + t * 16 + d; },
               [](int b, int h, int t, int) { return b + h + t; });
        generator random(seed);
        expect_dropped(c, ctx, random_keep(random, c));
      });
    }
}

TEST_CASE("drop_pages: plans by page, drops and growth, turn by turn with one result, every token keeps its position") {
  for (bool const per_head : {true, false}) {
    host ctx;
    constexpr std::int32_t P = 8, room = 400;
    layouts::cache<std::int32_t> c(per_head ? layout::head_pages : layout::nhd,
                                   {.lengths = {room, room}, .heads = 3, .page_size = P, .seed = 4});
    c.fill([](int b, int h, int t, int) { return 1000 * b + 7 * h + t; }, [](int, int, int t, int) { return t; });
    auto const by_page = policy{support::turns::noise{5}, protect{.sinks = 4, .recent = 20}}.with(select::pages{});
    dropped<std::int32_t> done;
    // pages in use of each row of the table, in order; and the tokens' positions
    std::int32_t const rows = per_head ? 6 : 2;
    std::vector<row_of_tokens> pages(static_cast<std::size_t>(rows)), positions(6);
    std::vector<std::int32_t> next(static_cast<std::size_t>(rows), 0), lengths(6, 0);
    generator random(8);
    std::int64_t released = 0;
    for (int turn = 0; turn < 12; ++turn) {
      auto const grown = static_cast<std::int32_t>(1 + random.below(30));
      for (std::int32_t r = 0; r < 6; ++r) {
        auto const i = static_cast<std::size_t>(r), t = static_cast<std::size_t>(per_head ? r : r / 3);
        std::int32_t const from = next[t];
        for (std::int32_t k = 0; k < grown; ++k) positions[i].push_back(from + k);
        lengths[i] += grown;
        if (!per_head && r % 3 != 2) continue;  // pages of the sequence, once
        for (std::int32_t k = from; k < from + grown; ++k)
          if (k % P == 0) pages[t].push_back(c.view.pages.entry(r / 3, r % 3, k / P));
        next[t] += grown;
      }
      row_of_tokens table, begin{0};
      for (auto const& p : pages) table.insert(table.end(), p.begin(), p.end()), begin.push_back(int(table.size()));
      auto view = c.view;
      view.pages.entries = table.data(), view.pages.row_begin = begin.data(), view.pages.columns = room / P;
      view.lengths = {lengths.data(), 3, 1};
      view = view.with_capability({.whole_pages = true, .rows_move = false, .newest_stays = true});
      budget const ask{.tokens_per_head = 60};
      keep_set const keep = per_head ? plan(ctx, by_page.with(heads::adaptive{}), contents(view), ask)
                                     : plan(ctx, by_page.with(heads::together{}), contents(view), ask);
      drop_pages(ctx, view, keep, done);
      released += done.released().size;
      for (std::int32_t r = 0; r < 6; ++r) {
        auto const i = static_cast<std::size_t>(r);
        row_of_tokens stay;
        for (std::int32_t const t : keep(r / 3, r % 3)) stay.push_back(positions[i][static_cast<std::size_t>(t)]);
        positions[i] = stay, lengths[i] = done.length(r / 3, r % 3);
        auto const after = done.view(view);
        REQUIRE(stay.size() == static_cast<std::size_t>(lengths[i]));
        for (std::int32_t t = 0; t < lengths[i]; ++t) {
          CHECK(element<std::int32_t>(after, *after.find(role::position), r / 3, r % 3, t) ==
                stay[static_cast<std::size_t>(t)]);
          CHECK(element<float>(after, *after.find(role::k), r / 3, r % 3, t) ==
                static_cast<float>(1000 * (r / 3) + 7 * (r % 3) + stay[static_cast<std::size_t>(t)]));
        }
      }
      for (std::int32_t t = 0; t < rows; ++t) {
        auto const e = done.entries(t);
        pages[static_cast<std::size_t>(t)].assign(e.begin(), e.end());
      }
    }
    CHECK(released > 10);
  }
}

TEST_CASE("drop_pages: a table that all layers go by is written once, and its pages are released once") {
  host ctx;
  generator random(3);
  std::deque<std::vector<std::byte>> memory;
  support::whole_pages::model m;
  m.L = 3, m.S = 2, m.H = 2, m.P = 4, m.per_head = false, m.layers_share = true;
  m.lengths = {18, 18, 8, 8, 18, 18, 8, 8, 18, 18, 8, 8};
  m.make_table(random);
  auto const view = m.view([&](auto const& x) { return support::together::keep_bytes(memory, x); });
  row_of_tokens const first{4, 5, 6, 7, 12, 13, 14, 15, 16, 17}, second{0, 1, 2, 3};
  std::vector<row_of_tokens> rows;
  for (int l = 0; l < 3; ++l) rows.insert(rows.end(), {first, first, second, second});
  auto const done = drop_pages(ctx, view, keep_of(view, rows));
  auto const at = [&](int s, int i) { return m.table[static_cast<std::size_t>(s * m.columns + i)]; };
  CHECK(done.rows() == 2);
  CHECK(list(done.entries(0)) == row_of_tokens{at(0, 1), at(0, 3), at(0, 4)});
  CHECK(list(done.entries(1)) == row_of_tokens{at(1, 0)});
  CHECK(list(done.released()) == row_of_tokens{at(0, 0), at(0, 2), at(1, 1)});
  CHECK(done.length(4, 1) == 10);
  auto const after = done.view(view);
  validate(after);
  for (int l = 0; l < 3; ++l) CHECK(after.pages.entry(2 * l, 1, 2) == at(0, 4));
  rows[10] = rows[11] = {0, 1, 2, 3, 4, 5, 6, 7};
  CHECK(contains(refusal([&] { drop_pages(ctx, view, keep_of(view, rows)); }),
                 "drop_pages: sequence 5, head 0 and sequence 1, head 0 keep different tokens but share a page table; "
                 "use a policy with one set for both, by .with(heads::together{}) or .with(layers::together{})"));
}

TEST_CASE("drop_pages: layers that go by one table are equally long, or an entry would be in neither list") {
  host ctx;
  generator random(3);
  std::deque<std::vector<std::byte>> memory;
  support::whole_pages::model m;
  m.L = 2, m.P = 2, m.per_head = false, m.layers_share = true, m.lengths = {3, 6};
  m.make_table(random);
  auto const view = m.view([&](auto const& x) { return support::together::keep_bytes(memory, x); });
  std::string const says =
      "drop_pages: sequence 1, head 0 has 6 tokens and sequence 0, head 0 3, but they share a page "
      "table";
  CHECK(contains(refusal([&] { drop_pages(ctx, view, keep_of(view, {{2}, {2}})); }), says));
  CHECK(contains(refusal([&] { drop_pages(ctx, view, keep_of(view, {{0, 1}, {0, 1}})); }), says));
}

TEST_CASE("drop_pages: a cache without a token may have no table, as after everything was dropped") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {10, 6}, .heads = 2});
  dropped<std::int32_t> done;
  drop_pages(ctx, c.view, keep_of(c.view, std::vector<row_of_tokens>(4)), done);
  CHECK(done.released().size == 5);
  for (int turn = 0; turn < 2; ++turn) {
    auto const view = done.view(c.view);
    drop_pages(ctx, view, keep_of(view, std::vector<row_of_tokens>(4)), done);
    CHECK((done.rows() == 2 && done.entries().empty() && done.released().empty()));
  }
  std::vector<std::int32_t> const no_tokens(4, 0);
  auto empty = c.view;
  empty.pages.entries = nullptr, empty.lengths = {no_tokens.data(), 2, 1};
  CHECK(drop_pages(ctx, empty, keep_of(empty, std::vector<row_of_tokens>(4))).rows() == 2);
}

TEST_CASE("drop_pages: sequences that have one row of the table in common are not written into it") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {10, 10}, .heads = 2, .spare_tokens = 8});
  c.view.pages.seq_stride = 0;  // a fork that nothing was added to yet
  row_of_tokens const front{0, 1, 2, 3, 8, 9}, back{4, 5, 6, 7, 8, 9};
  auto const done = drop_pages(ctx, c.view, keep_of(c.view, {front, front, back, back}));
  auto const before = c.entries();
  for (std::int64_t const stride : {0, 1}) {
    c.view.pages.seq_stride = stride;
    CHECK(contains(refusal([&] { done.write_dense(c.view.pages, c.entries().data()); }),
                   "rows of up to 2 entries would overlap in a table whose layers, sequences and heads are 0, " +
                       std::to_string(stride) + " and 0 entries apart; give each row entries of its own"));
    CHECK(c.entries() == before);
  }
  c.view.pages.seq_stride = 2;
  done.write_dense(c.view.pages, c.entries().data());
  CHECK(c.entries()[0] == before[0]);
  CHECK(c.entries()[2] == before[1]);
}

TEST_CASE("drop_pages: what pages cannot say is refused") {
  host ctx;
  dropped<std::int32_t> done;
  auto const says = [&](layer_view<> const& view, std::vector<row_of_tokens> const& rows) {
    std::string const text = refusal([&] { drop_pages(ctx, view, keep_of(view, rows), done); });
    CHECK(done.ok() == text.empty());
    if (!text.empty()) CHECK(contains(refusal([&] { done.lengths(); }), "there is no result"));
    return text;
  };
  layouts::cache<std::int32_t> paged(layout::nhd, {.lengths = {10}, .heads = 2}),
      apart(layout::head_pages, {.lengths = {10}, .heads = 2}), flat(layout::bnsh, {.lengths = {1}, .heads = 2});
  row_of_tokens const all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, none, newest{8, 9}, page{4, 5, 6, 7};
  CHECK(says(paged.view, {all, all}).empty());
  CHECK(says(paged.view, {none, none}).empty());
  CHECK(says(paged.view, {newest, newest}).empty());
  CHECK(says(apart.view, {newest, page}).empty());
  CHECK(says(paged.view, {{4, 5, 7, 8, 9}, {4, 5, 7, 8, 9}}) ==
        "drop_pages: sequence 0, head 0 keeps 3 of the 4 tokens of page 1; a page stays or goes as a whole, plan with "
        ".with(select::pages{}), or compact a cache whose rows move");
  CHECK(contains(says(apart.view, {page, {0, 1, 2, 3, 9}}), "head 1 keeps 1 of the 2 tokens of page 2"));
  CHECK(contains(says(apart.view, {page, {0, 1, 2, 3, 8}}), "head 1 keeps 1 of the 2 tokens of page 2"));
  CHECK(contains(says(apart.view, {{1, 2, 3, 4}, page}), "head 0 keeps 3 of the 4 tokens of page 0"));
  CHECK(contains(says(paged.view, {newest, page}), "keep different tokens but share a page table"));
  CHECK(contains(says(flat.view, {{0}, {0}}), "drop_pages: a contiguous cache has no page table; compact"));
  std::int32_t const read_only[] = {4};
  CHECK(contains(says(paged.view.with_read_only(read_only), {newest, newest}), "read-only prefix"));
  auto old = keep_of(paged.view, {newest, newest});
  old.made_for.epoch = 7;
  CHECK(contains(refusal([&] { drop_pages(ctx, paged.view.with_epoch(8), old, done); }), "was planned in epoch 7"));
  old.made_for = fingerprint_of(paged.view);
  std::swap(paged.entries()[0], paged.entries()[1]);
  CHECK(contains(refusal([&] { drop_pages(ctx, paged.view, old, done); }), "the pages of the view are not those"));
  old.refused = true;
  CHECK(contains(refusal([&] { drop_pages(ctx, paged.view, old, done); }), "the plan that was to fill this keep set"));
  auto many = paged.view;
  many.component_count = 1 << 20;
  CHECK(contains(says(many, {newest, newest}), "validate: 1048576 components"));
  paged.entries()[1] = 99;
  CHECK(contains(says(paged.view, {newest, newest}), "has id 99"));
}

TEST_CASE("scales that cover a page: plan names the stage, verbs that move name it and drop_pages, which does it") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::head_pages, {.lengths = {30}, .heads = 2, .page_size = 8});
  c.view.components[0].scope = quant_scope::page_channel;
  policy const tokens{support::turns::noise{5}, protect{.recent = 4}};
  budget const ask{.tokens_per_head = 16};
  CHECK(contains(refusal([&] { plan(ctx, tokens, contents(c.view), ask); }),
                 "add .with(select::pages{}) and apply its keep sets by drop_pages"));
  keep_set const keep = plan(ctx, tokens.with(select::pages{}), contents(c.view), ask);
  std::string const remedy = "plan with .with(select::pages{}) and drop_pages instead";
  auto const before = c.snapshot();
  CHECK(contains(refusal([&] { compact(ctx, c.view, keep); }), remedy));
  move_plan stored = plan_moves(ctx, c.view, keep_of(c.view, {{0}, {0}}));
  stored.sources = {8}, stored.destinations = {1}, stored.row_begin = {0, 1, 1}, stored.lengths = {2, 1};
  CHECK(contains(refusal([&] { apply(ctx, c.view, stored); }), remedy));
  std::vector<row_of_tokens> rows(2);
  for (std::int32_t t = 0; t < 30; ++t) rows[1].push_back(t), t != 7 ? rows[0].push_back(t) : void();
  CHECK(contains(refusal([&] { replace(ctx, c.view, keep_of(c.view, rows)); }), remedy));
  CHECK(drop_pages(ctx, c.view, keep).released().size > 0);
  CHECK(c.snapshot() == before);
}

TEST_CASE("drop_pages: no call after the second allocates") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::hnd, {.lengths = {90, 70}, .heads = 2});
  generator random(3);
  keep_set const keep = random_keep(random, c);
  dropped<std::int32_t> done;
  for (int i = 0; i < 2; ++i) drop_pages(ctx, c.view, keep, done);  // its two tables
  auto const before = allocations();
  drop_pages(ctx, c.view, keep, done);
  CHECK(allocations() == before);
}

}  // namespace apply_drop_pages_test
