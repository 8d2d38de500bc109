// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/rewrite_table.hpp>

#include <algorithm>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"
#include "support/stack.hpp"

namespace apply_rewrite_table_test {

using namespace kvevict;
using layouts::layout;
using reference::generator;
using support::contains, support::keep_of, support::refusal;

namespace {

/// Every head of a sequence keeps the same.
template <class Entry> keep_set one_set(generator& random, layer_view<Entry> const& v) {
  std::vector<std::vector<std::int32_t>> rows;
  for (int b = 0; b < v.sequences(); ++b) {
    auto const count = static_cast<std::int32_t>(random.below(static_cast<std::size_t>(v.length(b, 0)) + 1));
    rows.insert(rows.end(), static_cast<std::size_t>(v.heads()), support::random_row(random, v.length(b, 0), count));
  }
  return keep_of(v, rows);
}

template <class Entry> std::vector<Entry> list(slice<Entry const> x) { return {x.begin(), x.end()}; }

template <class Cache> void expect_rewritten(Cache& c, host& ctx, keep_set const& keep) {
  auto const before = c.snapshot();
  auto const old = c.entries();
  std::vector<std::vector<float>> wanted;
  for (int b = 0; b < c.view.sequences(); ++b)
    for (int h = 0; h < c.view.heads(); ++h) {
      auto const all = c.read(role::k, b, h);
      std::vector<float> row;
      for (std::int32_t const t : keep(b, h)) row.insert(row.end(), all.begin() + t * 16, all.begin() + t * 16 + 16);
      wanted.push_back(row);
    }
  auto const done = rewrite_table(ctx, c.view, keep);
  CHECK(c.entries() == old);
  std::vector<decltype(c.view.pages.entry(0, 0, 0))> gone;
  std::int64_t const heads = c.per_head() ? c.view.heads() : 1;
  for (std::int64_t row = 0; row < c.view.sequences() * heads; ++row) {
    auto const b = static_cast<int>(row / heads), h = static_cast<int>(row % heads);
    REQUIRE(done.entries(row).size == keep(b, h).size);
    for (std::int64_t i = 0; i < keep(b, h).size; ++i)
      CHECK(done.entries(row)[i] == c.view.pages.entry(b, h, keep(b, h)[i]));
    for (std::int32_t t = 0; t < c.view.length(b, h); ++t)
      if (std::count(keep(b, h).begin(), keep(b, h).end(), t) == 0) gone.push_back(c.view.pages.entry(b, h, t));
  }
  CHECK(list(done.released()) == gone);
  CHECK(c.snapshot() == before);
  auto const expect_cache = [&](auto const& view) {
    auto const was = c.view;
    c.view = view;
    for (int b = 0; b < view.sequences(); ++b)
      for (int h = 0; h < view.heads(); ++h) {
        CHECK(view.length(b, h) == keep(b, h).size);
        CHECK(c.read(role::k, b, h) == wanted[static_cast<std::size_t>(b * view.heads() + h)]);
      }
    c.view = was;
  };
  auto const after = done.view(c.view);
  validate(after);
  expect_cache(after);
  if (c.view.pages.row_begin == nullptr) {  // the engine's own table
    done.write_dense(c.view.pages, c.entries().data());
    auto own = after;
    own.pages = c.view.pages;
    expect_cache(own);
  } else {
    std::vector<std::int32_t> last(static_cast<std::size_t>(done.rows()));
    done.write_csr(c.row_begin().data(), last.data(), c.entries().data());
    auto own = after;
    own.pages = c.view.pages;
    expect_cache(own);
    for (std::int64_t r = 0; r < done.rows(); ++r)
      CHECK(last[static_cast<std::size_t>(r)] == (done.entries(r).size == 0 ? 0 : 1));
  }
}

}  // namespace

TEST_CASE("rewrite_table: the table names the kept tokens in order, dense, CSR, addresses and per head") {
  host ctx;
  for (std::uint64_t seed = 0; seed < 5; ++seed)
    for (layout const l : layouts::all) {
      if (l == layout::bnsh) continue;
      layouts::with_layout(l, {.lengths = {40, 0, 9}, .heads = 2, .page_size = 1, .seed = seed}, [&](auto& c) {
        CAPTURE(c.name(), seed);
        c.fill([](int b, int h, int t, int d) { return b * 7 + h * 3 + t * 16 + d; },
               [](int, int, int t, int) { return t; });
        generator random(seed);
        expect_rewritten(c, ctx, c.per_head() ? support::random_keep(random, c.view, true) : one_set(random, c.view));
      });
    }
}

TEST_CASE("rewrite_table: turn by turn with one result, whose table is the next view's") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::token_pool, {.lengths = {60, 40}, .heads = 2});
  c.fill([](int b, int, int t, int) { return b * 100 + t; }, [](int, int, int t, int) { return t; });
  generator random(2);
  rewritten<std::int32_t> done;
  auto view = c.view;
  std::vector<std::vector<std::int32_t>> tokens(2);
  for (int b = 0; b < 2; ++b)
    for (int t = 0; t < c.view.length(b, 0); ++t) tokens[static_cast<std::size_t>(b)].push_back(t);
  for (int turn = 0; turn < 4; ++turn) {
    keep_set const keep = one_set(random, view);
    rewrite_table(ctx, view, keep, done);
    for (int b = 0; b < 2; ++b) {
      std::vector<std::int32_t> next;
      for (std::int32_t const t : keep(b, 0))
        next.push_back(tokens[static_cast<std::size_t>(b)][static_cast<std::size_t>(t)]);
      tokens[static_cast<std::size_t>(b)] = next;
    }
    view = done.view(c.view);
    for (int b = 0; b < 2; ++b)
      for (int t = 0; t < view.length(b, 1); ++t)
        CHECK(element<float>(view, *view.find(role::k), b, 1, t) ==
              static_cast<float>(b * 100 + tokens[static_cast<std::size_t>(b)][static_cast<std::size_t>(t)]));
  }
}

TEST_CASE("rewrite_table: layers of a stack that go by one table have it once, and keep one set") {
  using support::placed;
  host ctx;
  auto const in = support::random_batch(5, {.Hq = 2, .H = 2, .D = 8, .N = {9, 4, 9, 4}});
  for (placed const how : {placed::layers_apart, placed::own_tables}) {
    support::stack s(in, 2, how, false);
    auto view = s.whole();
    view.pages.page_size = 1;  // of the first slots
    auto const n = std::min(s.columns, 4);
    s.lengths.assign(s.lengths.size(), n);
    std::vector<std::int32_t> const a{0, 2}, b{1}, other{0, 1};
    auto const done = rewrite_table(ctx, view, keep_of(view, {a, a, b, b, a, a, b, b}));
    std::int64_t const copies = how == placed::own_tables ? 2 : 1;
    REQUIRE(done.rows() == 2 * copies);
    for (std::int64_t r = 0; r < done.rows(); ++r) {
      auto const first = static_cast<std::int32_t>(r);  // the same sequence, in layer 0 or its own
      CHECK(done.entries(r)[0] == view.pages.entry(first, 0, r % 2 == 0 ? 0 : 1));
    }
    CHECK(done.released().size == copies * (2 * n - 3));
    CHECK(done.view(view).length(3, 1) == 1);
    validate(done.view(view));
    auto ragged_lengths = s.lengths;
    ragged_lengths[6] = ragged_lengths[7] = n - 1;  // of layer 1
    auto const ragged = [&] {
      auto out = view;
      out.lengths.data = ragged_lengths.data();
      return out;
    }();
    std::string const refused = refusal([&] { rewrite_table(ctx, ragged, keep_of(ragged, {a, a, b, b, a, a, b, b})); });
    CHECK(
        contains(refused, how == placed::own_tables ? "" : "sequence 3, head 0 has 2 tokens and sequence 1, head 0 3"));
    CHECK(refused.empty() == (how == placed::own_tables));
    auto const apart = keep_of(view, {a, a, b, b, other, other, b, b});
    CHECK(refusal([&] { rewrite_table(ctx, view, apart); }).empty() == (how == placed::own_tables));
  }
}

TEST_CASE("rewrite_table: tag bits stay in the table, and what is released has none") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::token_pool, {.lengths = {4}, .heads = 1});
  auto const plain = c.entries();
  for (std::int32_t& e : c.entries()) e |= 1 << 30;
  c.view.pages.index_mask = (1 << 30) - 1;
  auto const done = rewrite_table(ctx, c.view, keep_of(c.view, {{0, 2}}));
  CHECK(list(done.entries()) == std::vector<std::int32_t>{plain[0] | 1 << 30, plain[2] | 1 << 30});
  CHECK(list(done.released()) == std::vector<std::int32_t>{plain[1], plain[3]});
}

TEST_CASE("rewrite_table: a token of a common prefix goes from one sequence and stays in the other") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::token_pool, {.lengths = {5, 5}, .heads = 1});
  for (std::size_t i = 0; i < 3; ++i) c.entries()[5 + i] = c.entries()[i];
  auto const e = c.entries();
  auto const done = rewrite_table(ctx, c.view, keep_of(c.view, {{0, 3, 4}, {0, 1, 2, 3, 4}}));
  CHECK(list(done.entries(0)) == std::vector<std::int32_t>{e[0], e[3], e[4]});
  CHECK(list(done.entries(1)) == std::vector<std::int32_t>{e[0], e[1], e[2], e[8], e[9]});
  CHECK(list(done.released()) == std::vector<std::int32_t>{e[1], e[2]});
}

TEST_CASE("rewrite_table: what a table cannot say is refused") {
  host ctx;
  rewritten<std::int32_t> done;
  auto const says = [&](layer_view<> const& view, std::vector<std::vector<std::int32_t>> const& rows) {
    std::string const text = refusal([&] { rewrite_table(ctx, view, keep_of(view, rows), done); });
    CHECK(done.ok() == text.empty());
    if (!text.empty()) CHECK(contains(refusal([&] { done.lengths(); }), "there is no result"));
    return text;
  };
  layouts::cache<std::int32_t> pool(layout::token_pool, {.lengths = {6}, .heads = 2}),
      paged(layout::nhd, {.lengths = {6}, .heads = 2}), flat(layout::bnsh, {.lengths = {1}, .heads = 2});
  CHECK(says(pool.view, {{0, 5}, {0, 5}}).empty());
  CHECK(contains(says(paged.view, {{0, 5}, {0, 5}}), "pages of 4 tokens; compact the cache, or drop_pages"));
  CHECK(contains(says(flat.view, {{0}, {0}}), "rewrite_table: a contiguous cache has no page table; compact"));
  CHECK(contains(says(pool.view, {{0, 5}, {0, 4}}), "sequence 0, head 1 and sequence 0, head 0 keep different tokens"));
  CHECK(contains(says(pool.view, {{0, 5}, {0}}), "keep different tokens"));
  std::int32_t const no_tokens[] = {0}, read_only[] = {2};
  auto empty = pool.view;
  empty.pages.entries = nullptr, empty.lengths = {no_tokens, 1, 0};
  CHECK(says(empty, {{}, {}}).empty());
  CHECK(contains(says(pool.view.with_read_only(read_only), {{0, 5}, {0, 5}}), "read-only prefix"));
  pool.entries()[3] = 99;
  CHECK(contains(says(pool.view, {{0, 5}, {0, 5}}), "has id 99"));
  pool.entries()[3] = pool.entries()[0];
  CHECK(contains(says(pool.view, {{0, 5}, {0, 5}}), "pages 0 and 3 of sequence 0, head 0 are the same page"));
}

TEST_CASE("rewrite_table: no call after the second allocates") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::token_pool, {.lengths = {90, 70}, .heads = 2});
  generator random(3);
  keep_set const keep = one_set(random, c.view);
  rewritten<std::int32_t> done;
  for (int i = 0; i < 2; ++i) rewrite_table(ctx, c.view, keep, done);  // its two tables
  auto const before = allocations();
  rewrite_table(ctx, c.view, keep, done);
  CHECK(allocations() == before);
}

}  // namespace apply_rewrite_table_test
