// SPDX-License-Identifier: Apache-2.0
// While decoding: H2O holds a cache at its budget. Scores and positions live in the pages and move with the tokens.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include <kvevict/kvevict.hpp>

namespace {

constexpr int H = 2, D = 32, P = 16, pages = 32, budget = 128, slack = 16;

/// One component of the page pool: `width` 4-byte elements per slot.
kvevict::component slots(void* data, kvevict::role what, kvevict::dtype type, int width) {
  kvevict::component c;
  c.what = what;
  c.type = type;
  c.rows = {.base = static_cast<std::byte*>(data),
            .page_count = H * pages,
            .page_stride = P * width * 4,
            .slot_stride = width * 4,
            .run_bytes = width * 4};
  return c;
}

}  // namespace

int main() {
  std::vector<float> k(std::size_t{H * pages * P * D}), v(k.size()), scores(std::size_t{H * pages * P});
  std::vector<std::int32_t> positions(scores.size()), table(H * pages), lengths(H);
  std::iota(table.begin(), table.end(), 0);
  std::mt19937 bits(1);
  std::normal_distribution<float> normal;

  constexpr auto h2o = kvevict::presets::h2o({.recent = 32});
  kvevict::host ctx;
  kvevict::keep_set keep;
  int evictions = 0;
  for (std::int32_t position = 0; position < 600; ++position) {
    kvevict::layer_view<> cache;
    cache.pages = {.entries = table.data(),
                   .seq_stride = H * pages,
                   .head_stride = pages,
                   .sequences = 1,
                   .heads = H,
                   .columns = pages,
                   .page_size = P};
    cache.lengths = {lengths.data(), H, 1};
    cache = cache.with(slots(k.data(), kvevict::role::k, kvevict::dtype::f32, D))
                .with(slots(v.data(), kvevict::role::v, kvevict::dtype::f32, D))
                .with(slots(positions.data(), kvevict::role::position, kvevict::dtype::i32, 1))
                .with(slots(scores.data(), kvevict::role::state, kvevict::dtype::f32, state_floats(h2o)));

    // the engine: append the token, run attention (here: one query row per head)
    std::vector<float> query(H * D);  // (1, Hq, D)
    for (float& x : query) x = normal(bits);
    for (int h = 0; h < H; ++h) {
      std::int32_t const slot = lengths[std::size_t(h)]++;
      kvevict::element<std::int32_t>(cache, *cache.find(kvevict::role::position), 0, h, slot) = position;
      for (int d = 0; d < D; ++d)
        (&kvevict::element<float>(cache, *cache.find(kvevict::role::k), 0, h, slot))[d] = normal(bits);
    }

    // the policy: observe the step, and evict when the slack is used up
    std::int32_t const row_begin[] = {0, 1};
    kvevict::query_rows const q{.data = query.data(),
                                .token_stride = H * D,
                                .head_stride = D,
                                .heads = H,
                                .head_dim = D,
                                .row_begin = row_begin,
                                .positions = &position};
    kvevict::observe(ctx, h2o, kvevict::step(cache, q), {.tokens_per_head = budget});
    if (lengths[0] > budget + slack) {
      kvevict::plan(ctx, h2o, kvevict::remembered(cache), {.tokens_per_head = budget}, keep);
      auto const done = kvevict::compact(ctx, cache, keep);
      std::copy(done.lengths().begin(), done.lengths().end(), lengths.begin());  // physical; positions are untouched
      ++evictions;
    }
  }
  std::printf("600 tokens decoded, %d evictions, %d and %d tokens left; the oldest is token %d\n", evictions,
              lengths[0], lengths[1], positions[0]);
  return lengths[0] <= budget + slack && lengths[0] >= budget ? 0 : 1;
}
