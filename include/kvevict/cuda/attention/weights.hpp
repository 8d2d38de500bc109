// SPDX-License-Identifier: Apache-2.0
// Attention weights of a warp's tokens under the query rows that see them, a tile at a time; and the weights of single
// window rows.
#pragma once

#include <cstring>

#include <kvevict/core/weight_sum.hpp>
#include <kvevict/cuda/attention/key_rows.hpp>
#include <kvevict/cuda/attention/window.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The weights of 32 tokens, whose keys a warp holds, under 16 query rows of a head. Element k of `weights` belongs to
/// token token_of(k) and query row row_of(k).
template <class Entry, class Product> struct weight_tile {
  static constexpr int tiles = 2;  // of 16 tokens
  static constexpr int wide = 2;   // of 8 query rows
  static constexpr int size = tiles * wide * 4;
  using keys = typename Product::rows[tiles];
  using weights = accumulator[tiles][wide];

  attention_call<Entry> c;
  Product product;

  /// The keys of the tokens from `first` on; behind the last one its key again.
  KVEVICT_DEVICE void load_keys(thread& t, row const& it, std::int32_t first, keys& to) const {
    key_rows<Entry, Product> const at(c.view, c.keys, it.sequence, it.head);
    auto const key = [&](std::int32_t j) { return at(std::max(std::min(first + j, it.tokens - 1), 0)); };
    auto const place = static_cast<std::int32_t>(t.lane() / 4);
    KVEVICT_UNROLL
    for (int m = 0; m < tiles; ++m) to[m] = product.load_rows(t, key(m * 16 + place), key(m * 16 + place + 8));
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
  /// Of a head without gains, once.
  KVEVICT_DEVICE static void set_slopes(head_rows const& q, query_tile& to) {
    KVEVICT_UNROLL
    for (int k = 0; k < wide * 2; ++k) to.slope[k / 2][k % 2] = q.factor;
  }

  KVEVICT_DEVICE static std::int32_t row_of(thread& t, std::int32_t w, int n, int e) {
    return w + n * 8 + static_cast<std::int32_t>(t.lane() % 4 * 2) + e;
  }
  KVEVICT_DEVICE static std::int32_t row_of(thread& t, std::int32_t w, int k) {
    return row_of(t, w, k / 4 % wide, k % 2);
  }
  KVEVICT_DEVICE static std::int32_t token_of(thread& t, std::int32_t first, int k) {
    return first + k / 4 / wide * 16 + k % 4 / 2 * 8 + static_cast<std::int32_t>(t.lane() / 4);
  }
  KVEVICT_DEVICE static float& at(weights& z, int k) { return z[k / 4 / wide][k / 4 % wide].values[k % 4]; }

  /// From products to weights; 0 where a row does not see a token.
  KVEVICT_DEVICE void weigh(thread& t, query_tile const& q, window_rows const& in, token_orders const& orders,
                            std::int32_t w, std::int32_t end, std::int32_t first, weights& z) const {
    c.capped(z);
    KVEVICT_UNROLL
    for (int k = 0; k < size; ++k)
      at(z, k) = exp2(fma(at(z, k), q.slope[k / 4 % wide][k % 2], -q.lse[k / 4 % wide][k % 2]));
    if (w + 16 > end || !orders.see_all(in, w, w + 15, first, tiles * 16)) hide(t, in, orders, w, end, first, z);
  }
  KVEVICT_DEVICE static void hide(thread& t, window_rows const& in, token_orders const& orders, std::int32_t w,
                                  std::int32_t end, std::int32_t first, weights& z) {
    KVEVICT_UNROLL
    for (int k = 0; k < size; ++k) {
      std::int32_t const row = row_of(t, w, k), token = token_of(t, first, k);
      if (row >= end || token < 0 || !orders.sees(in, row, token)) at(z, k) = 0;
    }
  }

  /// Adds the weights of the tokens in [from, to) to the sums of their query rows; `sums`: of row 0 of the head.
  KVEVICT_DEVICE void add_to_sums(thread& t, weights& z, std::int32_t w, std::int32_t end, std::int32_t first,
                                  std::int32_t from, std::int32_t to, std::uint64_t* sums) const {
    KVEVICT_UNROLL
    for (int n = 0; n < wide; ++n) KVEVICT_UNROLL
    for (int e = 0; e < 2; ++e) {
      float sum = 0;
      KVEVICT_UNROLL
      for (int i = 0; i < 2 * tiles; ++i) {
        int const k = (i / 2 * wide + n) * 4 + i % 2 * 2 + e;
        std::int32_t const token = token_of(t, first, k);
        sum += token >= from && token < to ? at(z, k) : 0.0f;
      }
      for (std::uint32_t d = 4; d < warp_size; d *= 2) sum += shuffle_xor(t, sum, d);
      std::int32_t const row = row_of(t, w, n, e);
      if (t.lane() / 4 != 0 || row >= end) continue;
      auto const part = static_cast<std::uint64_t>(weight_sum::part_of(sum));
      if (sum != sum)
        atomic_or(t, &sums[row], part);
      else
        atomic_add(t, &sums[row], part);
    }
  }
};

/// x and one more head's, reduced.
KVEVICT_DEVICE inline float with_head(group_reduce how, std::int32_t g, float x, float next) {
  return g == 0 ? next : how == group_reduce::max ? (next > x || next != next ? next : x) : x + next;
}
KVEVICT_DEVICE inline float over_heads(group_reduce how, std::int32_t group) {
  return how == group_reduce::mean ? 1.0f / static_cast<float>(group) : 1.0f;
}

/// Puts a window row's weight of a token into its plane; refuses one that is not finite where it counts.
KVEVICT_DEVICE inline void put_weight(thread& t, watched const& watch, score_rows const& out, std::int64_t r,
                                      std::int64_t w, std::int64_t j, float x) {
  out.values[w * out.total_floats + out.begin[r] + j] = x;
  if (x - x == 0 || !out.evictable(r, j)) return;
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  watch.refuse(t, fault::not_finite, out.rows[r].sequence, out.rows[r].head, bits, 0, j);
}

/// The weights of every window row, reduced over the group. A warp takes 32 tokens and goes over the rows 16 at a time,
/// of all heads.
///
/// Shapes   grid (128 tokens, row) → out.plane(w), (W, B·H, N) floats.
template <class Entry, class Product> struct window_weights_kernel {
  static constexpr int max_threads = 128;
  using weights_of = weight_tile<Entry, Product>;
  weights_of tile;

  KVEVICT_DEVICE void operator()(thread& t) const {
    auto const& c = tile.c;
    if (c.watch.stopped(t)) return;
    auto const rows = static_cast<std::uint32_t>(c.out.count());
    std::int64_t const r = t.block().x % rows, first = std::int64_t{t.block().x / rows} * 128 + t.warp() * 32;
    row const& it = c.out.rows[r];
    if (!it.active || first >= it.tokens) return;
    window_rows const in = c.window_of(it);
    typename weights_of::keys keys;
    tile.load_keys(t, it, static_cast<std::int32_t>(first), keys);
    for (std::int32_t w = 0; w < in.count; w += 16) take(t, in, it, r, static_cast<std::int32_t>(first), w, keys);
  }

 private:
  KVEVICT_DEVICE void take(thread& t, window_rows const& in, row const& it, std::int64_t r, std::int32_t first,
                           std::int32_t w, typename weights_of::keys const& keys) const {
    auto const& c = tile.c;
    token_orders const orders = orders_of(c.out, it, r);
    float reduced[weights_of::size] = {};
    for (std::int32_t g = 0; g < c.group; ++g) {
      head_rows const q = c.head_of(in, it, r, g);
      typename weights_of::query_tile now;
      tile.set_slopes(q, now);
      tile.load_rows(t, q, w, in.count, now), tile.load_scales(t, q, w, in.count, now);
      typename weights_of::weights z = {};
      tile.product.multiply(t, keys, now.rows, z);
      t.sync_warp();
      tile.weigh(t, now, in, orders, w, in.count, first, z);
      if (c.sums != nullptr)
        tile.add_to_sums(t, z, w, in.count, first, first, it.tokens, c.sums + (r * c.group + g) * c.most_rows);
      KVEVICT_UNROLL
      for (int k = 0; k < weights_of::size; ++k) reduced[k] = with_head(c.o.group, g, reduced[k], tile.at(z, k));
    }
    KVEVICT_UNROLL
    for (int k = 0; k < weights_of::size; ++k) {
      std::int32_t const row = tile.row_of(t, w, k), token = tile.token_of(t, first, k);
      if (row < in.count && token < it.tokens)
        put_weight(t, c.watch, c.out, r, row, token, multiply(reduced[k], over_heads(c.o.group, c.group)));
    }
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
