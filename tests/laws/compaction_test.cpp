// SPDX-License-Identifier: Apache-2.0
// Applying a keep set: what is attended to afterwards is what a mask over the full cache would leave, and everything
// moves together.
#include <algorithm>
#include <cmath>
#include <set>

#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>

#include "support/any_preset.hpp"
#include "support/catch.hpp"

namespace compaction_test {

using namespace support;

namespace {

constexpr kvevict::budget ask{.tokens_per_head = 24, .layer = 1, .layer_count = 3};
constexpr kvevict::compaction modes[] = {kvevict::compaction::stable, kvevict::compaction::fill_holes};

/// Float attention of query row i over the slots of a cache's row, as they lie there.
template <class Cache>
std::vector<float> attend(Cache const& cache, batch const& in, int b, std::size_t hq, std::size_t i) {
  auto const h = static_cast<int>(hq / (in.Hq / in.H));
  auto const K = cache.read(kvevict::role::k, b, h), V = cache.read(kvevict::role::v, b, h);
  std::size_t const D = in.D, n = K.size() / D;
  std::vector<float> z(n), out(D, 0.0f);
  for (std::size_t s = 0; s < n; ++s) {
    for (std::size_t d = 0; d < D; ++d)
      z[s] += K[s * D + d] * static_cast<float>(in.layers[static_cast<std::size_t>(b)].queries.at(hq, i, d));
    z[s] /= std::sqrt(static_cast<float>(D));
  }
  float const top = n == 0 ? 0 : *std::max_element(z.begin(), z.end());
  float sum = 0;
  for (float& x : z) sum += x = std::exp(x - top);
  for (std::size_t s = 0; s < n; ++s)
    for (std::size_t d = 0; d < D; ++d) out[d] += z[s] / sum * V[s * D + d];
  return out;
}

/// Largest error of the compacted cache's attention against the masked full one, relative to the largest output.
template <class Cache> double attention_error(Cache const& cache, batch const& in, kvevict::keep_set const& keep) {
  double worst = 0;
  for (std::size_t b = 0; b < in.B(); ++b) {
    index_rows const kept = rows_of_sequence(keep, b);
    for (std::size_t hq = 0; hq < in.Hq && in.N[b] > 0; ++hq) {
      auto const expected = reference::attention_output(in.layers[b], hq, in.N[b], kept[in.layers[b].kv_head(hq)]);
      auto const obtained = attend(cache, in, static_cast<int>(b), hq, in.N[b]);
      double scale = 0, error = 0;
      for (std::size_t d = 0; d < in.D; ++d) {
        scale = std::max(scale, std::abs(expected[d]));
        error = std::max(error, std::abs(expected[d] - static_cast<double>(obtained[d])));
      }
      worst = std::max(worst, error / scale);
    }
  }
  return worst;
}

/// Positions, accumulated state, K and V of every slot belong to the same token, and the tokens are the kept ones.
template <class Cache>
void check_rows_followed(Cache const& cache, batch const& in, kvevict::keep_set const& keep, bool in_order) {
  auto const state_width = static_cast<std::size_t>(cache.shape().state_floats);
  for (int b = 0; b < keep.sequences; ++b)
    for (int h = 0; h < keep.heads; ++h) {
      auto const at = cache.read(kvevict::role::position, b, h), K = cache.read(kvevict::role::k, b, h),
                 V = cache.read(kvevict::role::v, b, h), state = cache.read(kvevict::role::state, b, h);
      auto const kept = keep(b, h);
      REQUIRE(static_cast<std::int64_t>(at.size()) == kept.size);
      std::vector<float> sorted = at;
      std::sort(sorted.begin(), sorted.end());
      CHECK(std::equal(kept.begin(), kept.end(), sorted.begin()));
      if (in_order) CHECK(sorted == at);
      bool same = true;
      for (std::size_t s = 0; s < at.size(); ++s) {
        auto const t = static_cast<std::size_t>(at[s]);
        auto const& l = in.layers[static_cast<std::size_t>(b)];
        for (std::size_t d = 0; d < in.D; ++d)
          same &= K[s * in.D + d] == static_cast<float>(l.keys.at(static_cast<std::size_t>(h), t, d)) &&
                  V[s * in.D + d] == static_cast<float>(l.values.at(static_cast<std::size_t>(h), t, d));
        for (std::size_t c = 0; c < state_width; ++c)
          same &= state[s * state_width + c] == at[s] * 100 + static_cast<float>(c);
      }
      CHECK(same);
    }
}

bool is_ragged(kvevict::keep_set const& keep) {
  for (std::int64_t r = 0; r < keep.rows(); ++r)
    if (keep.row(r).size != keep.row(r / keep.heads * keep.heads).size) return true;
  return false;
}

/// The cache with state that names its token and column.
template <class F> void with_state(layouts::layout l, std::int32_t page, batch const& in, F f) {
  auto shape = cache_shape_of(in);
  shape.page_size = page, shape.state_floats = 3;
  with_cache(l, shape, in, [&](auto& cache) {
    cache.fill(kvevict::role::state, [](int, int, int t, int c) { return t * 100 + c; });
    f(cache);
  });
}

template <class Cache, class Done> void take_lengths(Cache& cache, Done const& done) {
  auto const lengths = done.lengths();
  for (std::int32_t b = 0; b < cache.view.sequences(); ++b)
    for (std::int32_t h = 0; h < cache.view.heads(); ++h)
      cache.lengths()[static_cast<std::size_t>(cache.per_head() ? b * cache.view.heads() + h : b)] =
          lengths[std::int64_t{b} * cache.view.heads() + h];
}

template <class Cache, class Done>
void check_freed(Cache const& cache, Done const& done, std::vector<std::int32_t> const& before) {
  std::int64_t const P = cache.view.pages.page_size;
  std::int64_t expected = 0;
  for (std::int64_t t = 0; t < cache.view.pages.rows(); ++t) {
    std::int64_t const r = cache.per_head() ? t : t * cache.view.heads();
    expected += (before[static_cast<std::size_t>(t)] + P - 1) / P - (done.lengths()[r] + P - 1) / P;
  }
  if (cache.view.pages.is_identity()) expected = 0;
  auto const freed = done.freed_pages();
  CHECK(freed.size == expected);
  CHECK(std::set(freed.begin(), freed.end()).size() == static_cast<std::size_t>(expected));
}

}  // namespace

TEST_CASE("laws: compacted attention is masked attention, and state follows rows") {
  batch const in = random_batch(61, {.Hq = 6, .H = 2, .D = 16, .N = {75, 40, 9, 0}});
  hand_in const rows(in);
  kvevict::host ctx;
  for (layouts::layout const l : layouts::all)
    for (std::int32_t const page : {1, 16, 64, 256}) {
      bool const fixed =
          l == layouts::layout::token_pool || l == layouts::layout::bnsh || l == layouts::layout::transposed_v;
      if (page != 16 && fixed) continue;
      for (any_preset const& p : presets())
        for (auto const mode : modes)
          with_state(l, page, in, [&](auto& cache) {
            CAPTURE(p.name, cache.name(), page, static_cast<int>(mode), in.seed);
            auto const keep = p.plan(ctx, for_any(p, cache.view), rows, ask);
            auto const before = cache.snapshot();
            if (!cache.per_head() && !p.equal_counts && is_ragged(keep)) {  // refused, and nothing has changed
              CHECK_THROWS_WITH(kvevict::compact(ctx, cache.view, keep, mode),
                                Catch::Contains("share a page table; use a policy with equal counts"));
              CHECK(cache.snapshot() == before);
              return;
            }
            auto const lengths = cache.lengths();
            auto const done = kvevict::compact(ctx, cache.view, keep, mode);
            check_freed(cache, done, lengths);
            take_lengths(cache, done);
            if (p.unlimited()) CHECK(cache.snapshot() == before);
            check_rows_followed(cache, in, keep, mode == kvevict::compaction::stable);
            if (page == 16) CHECK(attention_error(cache, in, keep) < 1e-5);
            if (mode == kvevict::compaction::stable) CHECK(done.order() == kvevict::row_order::ascending);
          });
    }
}

TEST_CASE("laws: a budget of the whole length moves nothing") {
  batch const in = random_batch(62, {.D = 8, .N = {40, 17, 0}});
  hand_in const rows(in);
  kvevict::host ctx;
  for (any_preset const& p : presets())
    for (auto const mode : modes)
      with_state(layouts::layout::hnd, 16, in, [&](auto& cache) {
        CAPTURE(p.name);
        auto const before = cache.snapshot();
        auto const done =
            kvevict::compact(ctx, cache.view, p.plan(ctx, for_any(p, cache.view), rows, {.tokens_per_head = 40}), mode);
        CHECK(done.moves().moves() == 0);
        CHECK(done.freed_pages().size == 0);
        CHECK(done.order() == kvevict::row_order::ascending);
        CHECK(cache.snapshot() == before);
      });
}

TEST_CASE("laws: a cache that has been compacted can be planned again, heads of different lengths too") {
  batch const in = random_batch(63, {.Hq = 6, .H = 3, .D = 8, .N = {75, 60}});
  hand_in const rows(in);
  kvevict::host ctx;
  for (any_preset const& first : presets())
    for (any_preset const& second : presets())
      with_state(layouts::layout::head_pages, 16, in, [&](auto& cache) {
        if (second.name == "h2o" || second.name == "attention_gate") return;  // they need a row of every token
        bool const one_set = second.name == "tova" || second.name == "chunkkv";
        if (one_set && first.name != second.name) return;  // its heads need the same tokens
        CAPTURE(first.name, second.name, in.seed);
        take_lengths(cache,
                     kvevict::compact(ctx, cache.view, first.plan(ctx, cache.view, rows, {.tokens_per_head = 40})));
        std::vector<std::int32_t> const lengths = cache.lengths();
        kvevict::keep_set keep;
        for (std::int32_t const budget : {39, 41, 33, 20}) {  // 41: above the mean length, below the longest
          keep = second.plan(ctx, cache.view, rows, {.tokens_per_head = budget});
          for (std::int32_t b = 0; b < 2; ++b) {
            std::int64_t sum = 0, uniform = 0, all = 0;
            for (std::int32_t h = 0; h < 3; ++h) {
              std::int32_t const n = lengths[static_cast<std::size_t>(b * 3 + h)];
              sum += keep(b, h).size, uniform += std::min(n, budget), all += n;
            }
            CAPTURE(budget, lengths);
            CHECK(sum == (second.unlimited()    ? all
                          : second.equal_counts ? uniform
                                                : std::min<std::int64_t>(all, 3 * budget)));
          }
        }
        auto const done = kvevict::compact(ctx, cache.view, keep);
        for (std::int64_t r = 0; r < keep.rows(); ++r) CHECK(done.lengths()[r] == keep.row(r).size);
      });
}

}  // namespace compaction_test
