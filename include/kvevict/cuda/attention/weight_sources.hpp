// SPDX-License-Identifier: Apache-2.0
// Weights of a warp's 32 tokens under 16 window rows of a query head, whatever the evidence is.
#pragma once

#include <limits>

#include <kvevict/cuda/attention/softmax_rows.hpp>
#include <kvevict/cuda/attention/weights.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Which token and which row a lane's 16 weights belong to, see weight_tile.
using weight_places = weight_tile<std::int32_t, scalar_product>;
using tile_weights = weight_places::weights;

/// From queries and keys. `Entry`, `Product`: of the keys.
template <class Entry, class Product> struct multiplied_weights {
  using keys = typename weight_tile<Entry, Product>::keys;
  weight_tile<Entry, Product> tile;

  KVEVICT_DEVICE attention_call<Entry> const& call() const { return tile.c; }
  KVEVICT_DEVICE std::uint64_t* sums(std::int64_t r, std::int32_t g) const {
    return tile.c.sums == nullptr ? nullptr : tile.c.sums + (r * tile.c.group + g) * tile.c.most_rows;
  }
  /// Of one row of the cache, for the tokens from `first` on.
  KVEVICT_DEVICE void load(thread& t, row const& it, std::int32_t first, keys& to) const {
    tile.load_keys(t, it, first, to);
  }
  /// Window rows w … w + 15 of query head g; 0 of tokens that they do not see.
  KVEVICT_DEVICE void weigh(thread& t, row const& it, std::int64_t r, std::int32_t g, window_rows const& in,
                            keys const& of, std::int32_t w, std::int32_t first, tile_weights& z) const {
    head_rows const q = tile.c.head_of(in, it, r, g);
    typename weight_tile<Entry, Product>::query_tile now;
    tile.set_slopes(q, now);
    tile.load_rows(t, q, w, in.count, now), tile.load_scales(t, q, w, in.count, now);
    KVEVICT_UNROLL
    for (int k = 0; k < weight_places::size; ++k) weight_places::at(z, k) = 0;
    tile.product.multiply(t, of, now.rows, z);
    t.sync_warp();
    tile.weigh(t, now, in, orders_of(tile.c.out, it, r), w, in.count, first, z);
  }
  KVEVICT_DEVICE float lse(row const& it, std::int64_t r, std::int32_t g, window_rows const& in, std::int32_t w) const {
    return tile.c.head_of(in, it, r, g).lse_of(w) * 0.69314718055994531f;
  }
};

/// From softmax rows.
template <class Entry> struct given_weights {
  struct keys {};
  weights_call<Entry> c;

  KVEVICT_DEVICE weights_call<Entry> const& call() const { return c; }
  KVEVICT_DEVICE std::uint64_t* sums(std::int64_t, std::int32_t) const { return nullptr; }
  KVEVICT_DEVICE void load(thread&, row const&, std::int32_t, keys&) const {}
  KVEVICT_DEVICE void weigh(thread& t, row const& it, std::int64_t r, std::int32_t g, window_rows const& in,
                            keys const&, std::int32_t w, std::int32_t first, tile_weights& z) const {
    token_orders const orders = orders_of(c.out, it, r);
    for (int k = 0; k < weight_places::size; ++k) {
      std::int32_t const of = weight_places::row_of(t, w, k), token = weight_places::token_of(t, first, k);
      bool const seen = token >= 0 && of < in.count && orders.sees(in, of, token);
      weight_places::at(z, k) = seen ? c.weights(it, in, g, of)[c.column_of(it, token)] : 0.0f;
    }
  }
  KVEVICT_DEVICE float lse(row const&, std::int64_t, std::int32_t, window_rows const&, std::int32_t) const {
    return std::numeric_limits<float>::quiet_NaN();
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
