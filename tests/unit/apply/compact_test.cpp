// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/compact.hpp>

#include "support/catch.hpp"
#include "support/layouts.hpp"

using namespace kvevict;
using layouts::layout;
using reference::generator;

namespace {

/// Random kept tokens; the same number in all heads of a sequence unless the cache has a table per head.
template <class Cache> keep_set random_keep(generator& random, Cache const& cache) {
  keep_set keep;
  auto const& v = cache.view;
  keep.sequences = v.sequences(), keep.heads = v.heads();
  keep.row_begin.push_back(0);
  for (int b = 0; b < v.sequences(); ++b) {
    std::int32_t count = 0;
    for (int h = 0; h < v.heads(); ++h) {
      std::int32_t const n = v.length(b, h);
      if (h == 0 || cache.per_head()) count = static_cast<std::int32_t>(random.below(static_cast<std::size_t>(n) + 1));
      std::vector<std::int32_t> all(static_cast<std::size_t>(n));
      for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
      for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(i)]);
      std::sort(all.begin(), all.begin() + count);
      keep.tokens.insert(keep.tokens.end(), all.begin(), all.begin() + count);
      keep.row_begin.push_back(keep.kept());
      keep.lengths.push_back(n);
    }
  }
  return keep;
}

/// Which old token must lie in each slot of a row afterwards.
std::vector<std::int32_t> expected_row(slice<std::int32_t const> kept, compaction mode) {
  std::vector<std::int32_t> out(kept.begin(), kept.end());
  if (mode == compaction::stable) return out;
  std::vector<std::int32_t> filled(out.size(), -1);
  std::vector<std::int32_t> tail;
  for (std::int32_t const t : kept)
    if (t < kept.size) filled[static_cast<std::size_t>(t)] = t;
    else tail.push_back(t);
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

/// All bytes that rows in [0, length) of the view occupy afterwards, as (buffer address) → set; to see that no other byte changed.
template <class Cache> void expect_untouched_elsewhere(Cache& c, std::vector<std::vector<std::byte>> before, move_plan const& plan) {
  auto const after = c.snapshot();
  std::vector<std::vector<bool>> may(after.size());
  for (std::size_t i = 0; i < after.size(); ++i) may[i].resize(after[i].size());
  for (std::int64_t r = 0; r < plan.rows(); ++r)
    for (std::int64_t i = plan.row_begin[static_cast<std::size_t>(r)]; i < plan.row_begin[static_cast<std::size_t>(r) + 1]; ++i)
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

template <class Cache, class Done> void expect_compacted(Cache& c, keep_set const& keep, compaction mode, Done const& done) {
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
    int const b = static_cast<int>(c.per_head() ? t / c.view.heads() : t), h = static_cast<int>(c.per_head() ? t % c.view.heads() : 0);
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

TEST_CASE("compact: every layout, mode, page size and type; all components together, nothing else") {
  host ctx;
  std::uint64_t seed = 0;
  for (compaction const mode : {compaction::stable, compaction::fill_holes})
    for (std::int32_t const P : {1, 16, 64, 256})
      for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
        for (int round = 0; round < 2; ++round) {
          layouts::cache_shape shape{.lengths = {150, 0, 1, 37}, .heads = 2, .page_size = P, .type = type, .state_floats = round * 3, .seed = ++seed};
          if (round == 1) shape.lengths = {90}, shape.head_dim = 40;
          layouts::for_each_layout(shape, [&](auto& c) {
            CAPTURE(c.name(), P, name_of(type), seed, static_cast<int>(mode));
            fill(c);
            generator random(seed);
            keep_set const keep = random_keep(random, c);
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
