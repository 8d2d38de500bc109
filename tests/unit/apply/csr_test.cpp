// SPDX-License-Identifier: Apache-2.0
// Lengths as FlashInfer has them, by pages: into a view without a copy, and back from a compaction.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"

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
