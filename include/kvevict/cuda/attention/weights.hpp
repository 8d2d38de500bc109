// SPDX-License-Identifier: Apache-2.0
// Attention weights of a warp's tokens under the query rows that see them, a tile at a time; and the weights of single
// window rows.
#pragma once

#include <cstring>

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
  bool sound_lse;  // the LSE is the kernel's own, so that no weight needs a check

  /// The keys of the tokens from `first` on; behind the last one its key again.
  KVEVICT_DEVICE void load_keys(thread& t, row const& it, std::int32_t first, keys& to) const {
    token_rows<Entry> const at = c.view.rows_of(c.keys, it.sequence, it.head);
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
  KVEVICT_DEVICE void weigh(thread& t, query_tile const& q, window_rows const& in, std::int32_t w, std::int32_t end,
                            std::int32_t first, weights& z, float& largest) const {
    c.capped(z);
    KVEVICT_UNROLL
    for (int k = 0; k < size; ++k)
      at(z, k) = exp2(fma(at(z, k), q.slope[k / 4 % wide][k % 2], -q.lse[k / 4 % wide][k % 2]));
    if (w + 16 > end || first + tiles * 16 > in.sees(w)) hide(t, in, w, end, first, z);
    if (sound_lse) return;
    KVEVICT_UNROLL
    for (int k = 0; k < size; ++k) largest = fmaxf(largest, at(z, k));
  }
  KVEVICT_DEVICE static void hide(thread& t, window_rows const& in, std::int32_t w, std::int32_t end,
                                  std::int32_t first, weights& z) {
    KVEVICT_UNROLL
    for (int k = 0; k < size; ++k) {
      std::int32_t const row = row_of(t, w, k), token = token_of(t, first, k);
      if (row >= end || token >= in.sees(row)) at(z, k) = 0;
    }
  }
  KVEVICT_DEVICE void refuse_above_one(thread& t, row const& it, float largest) const {
    if (!sound_lse && largest > 1.001f) c.watch.refuse(t, fault::weight_above_one, it.sequence, it.head);
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
    float largest = 0;
    for (std::int32_t w = 0; w < in.count; w += 16)
      take(t, in, it, r, static_cast<std::int32_t>(first), w, keys, largest);
    tile.refuse_above_one(t, it, largest);
  }

 private:
  KVEVICT_DEVICE void take(thread& t, window_rows const& in, row const& it, std::int64_t r, std::int32_t first,
                           std::int32_t w, typename weights_of::keys const& keys, float& largest) const {
    auto const& c = tile.c;
    float reduced[weights_of::size] = {};
    for (std::int32_t g = 0; g < c.group; ++g) {
      head_rows const q = c.head_of(in, it, r, g);
      typename weights_of::query_tile now;
      tile.set_slopes(q, now);
      tile.load_rows(t, q, w, in.count, now), tile.load_scales(t, q, w, in.count, now);
      typename weights_of::weights z = {};
      tile.product.multiply(t, keys, now.rows, z);
      t.sync_warp();
      tile.weigh(t, now, in, w, in.count, first, z, largest);
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
