// SPDX-License-Identifier: Apache-2.0
// Sums of attention weights over query rows, per token.
#pragma once

#include <kvevict/cuda/attention/window.hpp>
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
  static constexpr int tiles = 2;              // of 16 tokens
  static constexpr int wide = 2;               // of 8 query rows, taken at a time
  static constexpr std::int32_t block = 1024;  // query rows
  attention_call<Entry> c;
  Product product;
  float* heads;    // (B·H, G, most_tokens) when query heads are pooled one by one, or null
  bool sound_lse;  // the LSE is the kernel's own, so that no weight needs a check
  pool_options pool;

  /// Wider pooling is a kernel of its own.
  static constexpr std::int32_t widest = 33;
  /// Tokens that a block writes.
  static constexpr std::int32_t written(pool_options const& o) { return 128 - o.width / 2 * 2; }

  KVEVICT_DEVICE void operator()(thread& t) const {
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
    std::int64_t const place = t.rank(), j = begin + place, half = pool.width / 2;
    if (place < half || place >= 128 - half || j >= it.tokens) return;
    to[j] = j < it.last ? pooled_at(pool, sums, -begin, it.last - begin, place) : sums[place];
  }

 private:
  /// The sums of the tokens from `first` on, as many as a warp takes.
  KVEVICT_DEVICE void add_up(thread& t, row const& it, std::int64_t r, std::int64_t first, float* to) const {
    window const in = c.window_of(it);
    token_rows<Entry> const at = c.view.rows_of(c.keys, it.sequence, it.head);
    typename Product::rows keys[tiles];
    auto const key = [&](std::int32_t j) {
      return at(std::max(std::min(static_cast<std::int32_t>(first) + j, it.tokens - 1), 0));
    };
    auto const place = static_cast<std::int32_t>(t.lane() / 4);
    KVEVICT_UNROLL
    for (int m = 0; m < tiles; ++m) keys[m] = product.load_rows(t, key(m * 16 + place), key(m * 16 + place + 8));
    float const share = c.o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(in.rows, 1)) : 1.0f;
    float result[tiles][2] = {}, largest = 0;
    for (std::int32_t g = 0; g < c.group; ++g) {
      double sums[tiles][2] = {};
      add_head(t, in, c.head_of(in, it, r, g), static_cast<std::int32_t>(first), keys, sums, largest);
      KVEVICT_UNROLL
      for (int m = 0; m < tiles; ++m) KVEVICT_UNROLL
      for (int e = 0; e < 2; ++e) {
        double sum = sums[m][e];
        for (std::uint32_t d = 1; d < 4; d *= 2) sum += shuffle_xor(t, sum, d);
        float const x = multiply(static_cast<float>(sum), share);
        if (heads != nullptr) put(t, heads + (r * c.group + g) * stride_of_heads() + first, it, first, m, e, x);
        result[m][e] = g == 0                           ? x
                       : c.o.group == group_reduce::max ? (x > result[m][e] || x != x ? x : result[m][e])
                                                        : result[m][e] + x;
      }
    }
    if (!sound_lse && largest > 1.001f) c.watch.refuse(t, fault::weight_above_one, it.sequence, it.head);
    float const over_heads = c.o.group == group_reduce::mean ? 1.0f / static_cast<float>(c.group) : 1.0f;
    KVEVICT_UNROLL
    for (int m = 0; m < tiles; ++m) KVEVICT_UNROLL
    for (int e = 0; e < 2 && heads == nullptr; ++e) put(t, to, it, first, m, e, multiply(result[m][e], over_heads));
  }

  KVEVICT_DEVICE std::int64_t stride_of_heads() const { return (c.out.most_tokens + 3) / 4 * 4; }

  /// One lane of those that hold a token's sum writes it.
  KVEVICT_DEVICE static void put(thread& t, float* to, row const& it, std::int64_t first, int m, int e, float x) {
    auto const j = static_cast<std::int64_t>(t.lane() / 4) + m * 16 + e * 8;
    if (t.lane() % 4 == 0 && first + j >= 0 && first + j < it.tokens) to[j] = x;
  }

  /// 16 query rows of a head from w on, of those before `end`; behind it the last one again, which sees nothing.
  struct query_tile {
    typename Product::columns rows[wide];
    float lse[wide][2], slope[wide][2];
  };
  KVEVICT_DEVICE void load_rows(thread& t, head_rows const& q, std::int32_t w, std::int32_t end, query_tile& to) const {
    KVEVICT_UNROLL
    for (int n = 0; n < wide; ++n)
      to.rows[n] = product.load_columns(
          t, [&](std::uint32_t k) { return q.query(std::min(w + n * 8 + static_cast<std::int32_t>(k), end - 1)); });
  }
  KVEVICT_DEVICE static void load_scales(thread& t, head_rows const& q, std::int32_t w, std::int32_t end,
                                         query_tile& to) {
    KVEVICT_UNROLL
    for (int k = 0; k < wide * 2; ++k) to.lse[k / 2][k % 2] = q.lse_of(std::min(row_of(t, w, k / 2, k % 2), end - 1));
    if (q.gains == nullptr) return;
    KVEVICT_UNROLL
    for (int k = 0; k < wide * 2; ++k)
      to.slope[k / 2][k % 2] = q.slope_of(std::min(row_of(t, w, k / 2, k % 2), end - 1));
  }
  KVEVICT_DEVICE static std::int32_t row_of(thread& t, std::int32_t w, int n, int e) {
    return w + n * 8 + static_cast<std::int32_t>(t.lane() % 4 * 2) + e;
  }

  KVEVICT_DEVICE void add_head(thread& t, window const& in, head_rows const& q, std::int32_t first,
                               typename Product::rows const (&keys)[tiles], double (&sums)[tiles][2],
                               float& largest) const {
    // rows before this one see none of these tokens
    std::int32_t const unseen = in.step == 0 ? 0 : first + 1 - in.first_sees;
    std::int32_t const begin = unseen <= 0 ? 0 : unseen / 16 * 16;
    for (std::int32_t from = begin / block * block; from < in.rows; from += block) {
      float part[tiles][2] = {};
      std::int32_t const start = std::max(from, begin), end = std::min(from + block, in.rows);
      query_tile now;
      KVEVICT_UNROLL
      for (int k = 0; k < wide * 2; ++k) now.slope[k / 2][k % 2] = q.factor;
      load_rows(t, q, start, end, now);
      load_scales(t, q, start, end, now);
      KVEVICT_KEEP_LOOP
      for (std::int32_t w = start; w < end; w += 16) {
        accumulator z[tiles][wide] = {};
        product.multiply(t, keys, now.rows, z);
        // arrive while weights are worked out: no compiler moves them behind the barrier
        load_rows(t, q, w + 16, end, now);
        t.sync_warp();
        add_rows(t, now, in, w, end, first, z, part, largest);
        load_scales(t, q, w + 16, end, now);
      }
      KVEVICT_UNROLL
      for (int m = 0; m < tiles; ++m) KVEVICT_UNROLL
      for (int e = 0; e < 2; ++e) sums[m][e] += static_cast<double>(part[m][e]);
    }
  }

  KVEVICT_DEVICE void add_rows(thread& t, query_tile const& q, window const& in, std::int32_t w, std::int32_t end,
                               std::int32_t first, accumulator (&z)[tiles][wide], float (&part)[tiles][2],
                               float& largest) const {
    c.capped(z);
    KVEVICT_UNROLL
    for (int k = 0; k < tiles * wide * 4; ++k) {
      float& x = z[k / 4 / wide][k / 4 % wide].values[k % 4];
      x = exp2(fma(x, q.slope[k / 4 % wide][k % 2], -q.lse[k / 4 % wide][k % 2]));
    }
    if (w + 16 > end || first + tiles * 16 > in.sees(w)) hide(t, in, w, end, first, z);
    KVEVICT_UNROLL
    for (int k = 0; k < tiles * wide * 4; ++k)
      part[k / 4 / wide][k % 4 / 2] += z[k / 4 / wide][k / 4 % wide].values[k % 4];
    if (sound_lse) return;
    KVEVICT_UNROLL
    for (int k = 0; k < tiles * wide * 4; ++k) largest = fmaxf(largest, z[k / 4 / wide][k / 4 % wide].values[k % 4]);
  }
  KVEVICT_DEVICE static void hide(thread& t, window const& in, std::int32_t w, std::int32_t end, std::int32_t first,
                                  accumulator (&z)[tiles][wide]) {
    KVEVICT_UNROLL
    for (int k = 0; k < tiles * wide * 4; ++k) {
      std::int32_t const row = row_of(t, w, k / 4 % wide, k % 2),
                         token = first + k / 4 / wide * 16 + k % 4 / 2 * 8 + static_cast<std::int32_t>(t.lane() / 4);
      if (row >= end || token >= in.sees(row)) z[k / 4 / wide][k / 4 % wide].values[k % 4] = 0;
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
      best = g == 0 ? y : reduce == group_reduce::max ? (y > best || y != y ? y : best) : best + y;
    }
    out.values[out.begin[r] + j] =
        reduce == group_reduce::mean ? multiply(best, 1.0f / static_cast<float>(group)) : best;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
