// SPDX-License-Identifier: Apache-2.0
// Sums of attention weights over query rows, per token.
#pragma once

#include <kvevict/cuda/attention/weights.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/scores/pool.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A warp takes 32 tokens, whose keys it holds, and goes over the query rows that see them: head by head, 16 rows at a
/// time, in order. A lane adds up two rows of every 8, those of 1 024 rows in float and these sums in double; its four
/// lanes' sums then make a token's. Grid: (128 tokens, row), of which a block that pools them writes those whose
/// neighbours it has.
///
/// Shapes   queries (T,Hq,D), keys (B·H, N, D), lse (B·H, G·most_rows) or (T,Hq) → scores (B·H, N), or heads.
template <class Entry, class Product> struct column_sums_kernel {
  static constexpr int max_threads = 128;
  static constexpr std::int32_t block = 1024;  // query rows
  using weights_of = weight_tile<Entry, Product>;
  static constexpr int tiles = weights_of::tiles;
  weights_of tile;
  float* heads;  // (B·H, G, most_tokens) when query heads are pooled one by one, or null
  pool_options pool;

  /// Wider pooling is a kernel of its own.
  static constexpr std::int32_t widest = 33;
  /// Tokens that a block writes.
  static constexpr std::int32_t written(pool_options const& o) { return 128 - o.width / 2 * 2; }

  KVEVICT_DEVICE void operator()(thread& t) const {
    auto const& c = tile.c;
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, float, sums, 128);
    // of which the first chunks come first: rows that see all see most
    auto const rows = static_cast<std::uint32_t>(c.out.count());
    std::int64_t const r = t.block().x % rows,
                       begin = std::int64_t{t.block().x / rows} * written(pool) - pool.width / 2;
    row const& it = c.out.rows[r];
    if (!it.active || it.tokens == 0 || begin >= it.tokens) return;
    float* const to = c.out.values + c.out.begin[r];
    std::int64_t const first = begin + t.warp() * 32;
    if (first < it.tokens) add_up(t, it, r, first, pool.width == 1 ? to + first : sums + t.warp() * 32);
    if (pool.width == 1) return;
    t.sync_block();
    std::int64_t const place = t.linear_index(), j = begin + place, half = pool.width / 2;
    if (place < half || place >= 128 - half || j >= it.tokens) return;
    to[j] = j < it.last ? pooled_at(pool, sums, -begin, it.last - begin, place) : sums[place];
  }

 private:
  /// The sums of the tokens from `first` on, as many as a warp takes.
  KVEVICT_DEVICE void add_up(thread& t, row const& it, std::int64_t r, std::int64_t first, float* to) const {
    auto const& c = tile.c;
    window_rows const in = c.window_of(it);
    typename weights_of::keys keys;
    tile.load_keys(t, it, static_cast<std::int32_t>(first), keys);
    float const share = c.o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(in.count, 1)) : 1.0f;
    float result[tiles][2] = {};
    token_orders const orders = orders_of(c.out, it, r);
    for (std::int32_t g = 0; g < c.group; ++g) {
      double sums[tiles][2] = {};
      add_head(t, in, orders, c.head_of(in, it, r, g), static_cast<std::int32_t>(first), keys,
               c.sums == nullptr ? nullptr : c.sums + (r * c.group + g) * c.most_rows, sums);
      KVEVICT_UNROLL
      for (int m = 0; m < tiles; ++m) KVEVICT_UNROLL
      for (int e = 0; e < 2; ++e) {
        double sum = sums[m][e];
        for (std::uint32_t d = 1; d < 4; d *= 2) sum += shuffle_xor(t, sum, d);
        float const x = multiply(static_cast<float>(sum), share);
        if (heads != nullptr) put(t, heads + (r * c.group + g) * stride_of_heads() + first, it, first, m, e, x);
        result[m][e] = with_head(c.o.group, g, result[m][e], x);
      }
    }
    float const share_of_head = over_heads(c.o.group, c.group);
    KVEVICT_UNROLL
    for (int m = 0; m < tiles; ++m) KVEVICT_UNROLL
    for (int e = 0; e < 2 && heads == nullptr; ++e) put(t, to, it, first, m, e, multiply(result[m][e], share_of_head));
  }

  KVEVICT_DEVICE std::int64_t stride_of_heads() const { return (tile.c.out.most_tokens + 3) / 4 * 4; }

  /// One lane of those that hold a token's sum writes it.
  KVEVICT_DEVICE static void put(thread& t, float* to, row const& it, std::int64_t first, int m, int e, float x) {
    auto const j = static_cast<std::int64_t>(t.lane() / 4) + m * 16 + e * 8;
    if (t.lane() % 4 == 0 && first + j >= 0 && first + j < it.tokens) to[j] = x;
  }

  /// The first and the last token that a block writes, of the chunk that `first` lies in.
  KVEVICT_DEVICE sight written_by(std::int32_t first, thread& t) const {
    std::int32_t const half = pool.width / 2, begin = first - static_cast<std::int32_t>(t.warp() * 32);
    return {begin + half, begin + 128 - half};
  }

  KVEVICT_DEVICE void add_head(thread& t, window_rows const& in, token_orders const& orders, head_rows const& q,
                               std::int32_t first, typename weights_of::keys const& keys, std::uint64_t* checked,
                               double (&sums)[tiles][2]) const {
    // rows before this one see none of these tokens
    std::int32_t const begin = orders.positions != nullptr ? 0 : in.first_to_reach(first) / 16 * 16;
    sight const mine = written_by(first, t);
    for (std::int32_t from = begin / block * block; from < in.count; from += block) {
      float part[tiles][2] = {};
      std::int32_t const start = std::max(from, begin), end = std::min(from + block, in.count);
      typename weights_of::query_tile now;
      tile.set_slopes(q, now);
      tile.load_rows(t, q, start, end, now);
      tile.load_scales(t, q, start, end, now);
      KVEVICT_KEEP_LOOP
      for (std::int32_t w = start; w < end; w += 16) {
        typename weights_of::weights z = {};
        tile.product.multiply(t, keys, now.rows, z);
        // arrive while weights are worked out: no compiler moves them behind the barrier
        tile.load_rows(t, q, w + 16, end, now);
        t.sync_warp();
        tile.weigh(t, now, in, orders, w, end, first, z);
        if (checked != nullptr) tile.add_to_sums(t, z, w, end, first, mine.from, mine.to, checked);
        KVEVICT_UNROLL
        for (int k = 0; k < weights_of::size; ++k) part[k / 4 / weights_of::wide][k % 4 / 2] += tile.at(z, k);
        tile.load_scales(t, q, w + 16, end, now);
      }
      KVEVICT_UNROLL
      for (int m = 0; m < tiles; ++m) KVEVICT_UNROLL
      for (int e = 0; e < 2; ++e) sums[m][e] += static_cast<double>(part[m][e]);
    }
  }
};

/// Pools each query head's sums over the evictable tokens, then reduces over the group: in place of the reduction
/// above.
///
/// Shapes   heads (B·H, G, stride) → scores (B·H, N).
struct pool_heads_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  pool_options o;
  group_reduce reduce;
  score_rows out;
  float const* heads;  // (B·H, G, stride)
  std::int64_t stride;
  std::int32_t group;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, out, chunks, r);
    if (j < 0) return;
    float best = 0;
    for (std::int32_t g = 0; g < group; ++g) {
      float const* const x = heads + (r * group + g) * stride;
      float const y = j < out.rows[r].last ? pooled_at(o, x, 0, out.rows[r].last, j) : x[j];
      best = with_head(reduce, g, best, y);
    }
    out.values[out.begin[r] + j] = multiply(best, over_heads(reduce, group));
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
