// SPDX-License-Identifier: Apache-2.0
// Lengths as FlashInfer has them, by pages: into a view without a copy, and back from a compaction.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace apply_csr_test {

using namespace support;
using Catch::Contains;

namespace {

struct paged {
  batch in = random_batch(97, {.Hq = 4, .H = 2, .D = 8, .N = {40, 0, 33, 8}});
  layouts::cache<std::int32_t> cache;
  std::vector<std::int32_t> begin, last;

  paged() : cache(layouts::layout::csr, shape()), begin(cache.row_begin()) {
    fill(cache, in);
    for (std::size_t const n : in.N) last.push_back(n == 0 ? 0 : int32((n - 1) % 8 + 1));
  }
  layouts::cache_shape shape() const {
    auto out = cache_shape_of(in);
    out.page_size = 8;
    return out;
  }
  auto view() const {
    auto out = cache.view;
    out.lengths = kvevict::length_map::of_pages(begin.data(), last.data(), 8);
    return out;
  }
};

constexpr auto policy = kvevict::presets::streaming_llm({.sinks = 2});

}  // namespace

TEST_CASE("csr: lengths by pages are the lengths") {
  paged p;
  kvevict::host ctx;
  for (std::int32_t b = 0; b < 4; ++b) CHECK(p.view().length(b, 1) == p.cache.view.length(b, 1));
  kvevict::budget const ask{.tokens_per_head = 20};
  CHECK(kvevict::plan(ctx, policy, kvevict::contents(p.view()), ask).tokens ==
        kvevict::plan(ctx, policy, kvevict::contents(p.cache.view), ask).tokens);
}

TEST_CASE("csr: what a compaction leaves is a table and lengths by pages again") {
  paged p;
  kvevict::host ctx;
  std::vector<std::int32_t> const all(p.cache.entries().begin(), p.cache.entries().end());  // 5, 0, 5 and 1 pages
  using ids = std::vector<std::int32_t>;
  struct turn {
    std::int32_t budget;
    ids begin, last, places;
  };
  for (turn const& t : {turn{20, {0, 3, 3, 6, 7}, {4, 0, 4, 8}, {0, 1, 2, 5, 6, 7, 10}},
                        turn{9, {0, 2, 2, 4, 5}, {1, 0, 1, 8}, {0, 1, 5, 6, 10}}}) {
    auto view = p.view();
    view.pages.row_begin = p.begin.data();
    auto const keep = kvevict::plan(ctx, policy, kvevict::contents(view), {.tokens_per_head = t.budget});
    auto const done = kvevict::compact(ctx, view, keep);
    ids begin(5, -1), last(4, -1);
    done.write_csr(view.pages, begin.data(), last.data(), p.cache.entries().data());  // in place
    CHECK(begin == t.begin);
    CHECK(last == t.last);
    for (std::size_t i = 0; i < t.places.size(); ++i)
      CHECK(p.cache.entries()[i] == all[static_cast<std::size_t>(t.places[i])]);
    p.begin = begin, p.last = last;
    for (std::int32_t b = 0; b < 4; ++b) CHECK(p.view().length(b, 0) == done.length(b, 0));
    begin.assign(5, -1);
    done.write_csr(view.pages, begin.data(), last.data(), nullptr);
    CHECK(begin == t.begin);
  }
}

namespace {

/// Two layers of two sequences of two heads that go by one table, in pages of two.
struct shared_table {
  std::vector<std::int32_t> table{6, 7, 8, 2, 3, 4}, begin{0, 3, 6}, lengths{6, 6, 5, 5, 6, 6, 5, 5};
  std::vector<float> keys = std::vector<float>(2 * 9 * 4);

  kvevict::layer_view<> view() {
    kvevict::layer_view<> v;
    v.pages.entries = table.data(), v.pages.row_begin = begin.data(), v.pages.columns = 3, v.pages.page_size = 2;
    v.pages.sequences = 4, v.pages.heads = 2, v.pages.layers = 2, v.lengths = {lengths.data(), 2, 1};
    kvevict::component k;
    k.rows.base = reinterpret_cast<std::byte*>(keys.data()), k.rows.page_count = 9, k.rows.run_bytes = 4;
    k.rows.slot_stride = 4, k.rows.head_stride = 8, k.rows.page_stride = 16, k.rows.layer_stride = 9 * 16;
    return v.with(k);
  }
};
using ids = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("csr: a table that all layers share is written once, in place, and names each freed page once") {
  shared_table s;
  kvevict::host ctx;
  ids const a{0, 5}, b{2, 3, 4};
  auto const done = kvevict::compact(ctx, s.view(), keep_of(s.view(), {a, a, b, b, a, a, b, b}));
  CHECK(ids(done.freed_pages().begin(), done.freed_pages().end()) == ids{7, 8, 4});
  CHECK((done.columns(0).first == 1 && done.columns(0).last == 3 && done.columns(1).first == 2));
  CHECK_THROWS_WITH(done.freed_pages(2), Contains("there is no row 2 in the page table"));
  ids last(4, -7);
  s.begin.resize(5, -7);
  done.write_csr(s.view().pages, s.begin.data(), last.data(), s.table.data());
  CHECK(s.begin == ids{0, 1, 3, -7, -7});
  CHECK(last == ids{2, 1, -7, -7});
  CHECK(ids(s.table.begin(), s.table.begin() + 3) == ids{6, 2, 3});
}

TEST_CASE(
    "csr: an empty tensor is a table of as many rows as any other of its layers, a contiguous cache has its own") {
  shared_table s;
  s.lengths.assign(8, 0);
  kvevict::host ctx;
  auto view = s.view();
  view.pages.entries = nullptr, view.pages.row_begin = nullptr;
  for (std::int32_t const columns : {0, 1}) {
    view.pages.columns = columns;
    auto const done = kvevict::compact(ctx, view, keep_of(view, std::vector<ids>(8)));
    ids begin(6, -7), last(6, -7), entries(6, -7);
    done.write_csr(view.pages, begin.data(), last.data(), entries.data());
    CHECK(begin == (columns == 0 ? ids{0, 0, 0, -7, -7, -7} : ids{0, 0, 0, 0, 0, -7}));
    CHECK(last == (columns == 0 ? ids{0, 0, -7, -7, -7, -7} : ids{0, 0, 0, 0, -7, -7}));
    CHECK(entries == ids(6, -7));
  }
}

TEST_CASE("csr: a page is free when no layer that shares it needs it, and lengths that differ have no rows") {
  shared_table s;
  kvevict::host ctx;
  ids const a{0, 5}, b{2, 3, 4}, all{0, 1, 2, 3}, none;
  auto const done = kvevict::compact(ctx, s.view(), keep_of(s.view(), {a, a, b, b, all, all, none, none}));
  CHECK(ids(done.freed_pages().begin(), done.freed_pages().end()) == ids{8, 4});
  CHECK((done.columns(0).first == 2 && done.columns(0).last == 3));
  ids last(2), begin(3);
  CHECK_THROWS_WITH(done.write_csr(s.view().pages, begin.data(), last.data(), nullptr),
                    Contains("layers 0 and 1 share the page table's row 0 and have 2 and 4 tokens; keep equally many"));
  CHECK(begin == ids(3));
}

TEST_CASE("csr: without heads there are no pages, and reserved pages are in neither the rows nor the freed ones") {
  paged p;
  kvevict::host ctx;
  auto view = p.view();
  view.pages.heads = 0;
  auto const nothing = kvevict::compact(ctx, view, keep_of(view, {}));
  ids begin(5, -1), last(4, -1);
  nothing.write_csr(view.pages, begin.data(), last.data(), nullptr);
  CHECK(begin == ids(5));
  CHECK(last == ids(4));

  shared_table s;
  s.lengths = {4, 4, 2, 2, 4, 4, 2, 2};  // a page of the first sequence and two of the second are reserved
  auto const done =
      kvevict::compact(ctx, s.view(), keep_of(s.view(), {{0, 3}, {0, 3}, {1}, {1}, {0, 3}, {0, 3}, {1}, {1}}));
  ids entries(2, -1), row_begin(3);
  done.write_csr(s.view().pages, row_begin.data(), last.data(), entries.data());
  CHECK(entries == ids{6, 2});
  CHECK(row_begin == ids{0, 1, 2});
  CHECK(ids(done.freed_pages().begin(), done.freed_pages().end()) == ids{7});
}

TEST_CASE("csr: lengths that no pages have are refused") {
  kvevict::host ctx;
  auto const refuses = [&](auto change, std::string const& what) {
    paged p;
    change(p);
    CHECK_THROWS_WITH(kvevict::plan(ctx, policy, kvevict::contents(p.view()), {.tokens_per_head = 20}), Contains(what));
  };
  refuses([](paged& p) { p.last[0] = 9; }, "2147483647 tokens, but its table addresses 40");
  refuses([](paged& p) { p.last[2] = -3; }, "the length of sequence 2, head 0 is -3");
  refuses([](paged& p) { p.begin[1] = -1; }, "the length of sequence 0, head 0 is -1");
  paged p;
  auto view = p.view();
  view.lengths.page_size = 16;
  CHECK_THROWS_WITH(kvevict::plan(ctx, policy, kvevict::contents(view), {.tokens_per_head = 20}),
                    Contains("lengths count pages of 16 tokens"));
}

}  // namespace apply_csr_test
