// SPDX-License-Identifier: Apache-2.0
// Sums of the weights of few query rows, those of a step of decoding: packing a tile for them would take longer than
// multiplying, so each key is multiplied as it lies. Heads whose keys of a token lie side by side take turns at every
// pair of tokens, so that keys are read in the order of memory.
#pragma once

#include <algorithm>

#include <kvevict/kernels/window_call.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Dot products of keys_abreast keys with every row of a block: `lanes` partial sums each, which are then added.
/// read(k, d) gives elements [d, d + lanes) of key k.  → products (rows, tile_tokens), columns 0 … keys_abreast − 1
template <class Read>
[[gnu::always_inline]] inline void multiply_keys(query_block const& q, std::int32_t width, float* products,
                                                 Read const& read) {
  constexpr int N = keys_abreast;
  for (int i = 0; i < q.rows; i += row_block, products += row_block * tile_tokens) {
    float const* y = q.block(i);
    vec sum[N][row_block] = {};
    for (std::int32_t d = 0; d < width; d += lanes, y += row_block * lanes) {
      vec x[N];
      unroll<N>([&](auto k) { x[k] = in_register(read(k, d)); });
      unroll<row_block>([&](auto r) {
        vec const each = in_register(load(y + r * lanes));
        unroll<N>([&](auto k) { sum[k][r] = multiply_add(each, x[k], sum[k][r]); });
      });
    }
    unroll<N>([&](auto k) {
      float sums[lanes];
      store(sums, reduce<row_block>(sum[k], add{}));
      for (int r = 0; r < row_block; ++r) products[r * tile_tokens + k] = sums[r * (lanes / row_block)];
    });
  }
}

/// Some KV heads of one sequence with few query rows each.
template <class Entry> class short_windows {
 public:
  short_windows(window_call<Entry> const& call, window_row const* rows, std::int32_t count, float* memory)
      : call_(call), rows_(rows), count_(count), memory_(memory) {}

  /// Tiles [first, last), as far as there are tokens.
  void sum_columns(std::int64_t first, std::int64_t last) {
    std::int64_t const end = std::min(last * tile_tokens, longest(0, count_));
    if (first * tile_tokens >= end) return;
    pack();
    for (std::int64_t t = first * tile_tokens; t < end; t += tile_tokens) {
      multiply(t);
      for (std::int32_t i = 0; i < count_; ++i)
        if (t < rows_[i].tokens) sum_tile(heads_[i], rows_[i], t);
    }
    for (std::int32_t i = 0; i < count_; ++i) take_parts(heads_[i].checked, heads_[i].queries.rows, rows_[i].checked);
  }

 private:
  struct head {
    query_block queries;
    float *products, *checked;  // (rows, tile_tokens) of a tile; (rows, lanes) of all tiles
  };
  static constexpr int tokens_ahead = 4;  // how far ahead keys are fetched
  static_assert(tile_tokens % keys_abreast == 0);

  /// Tokens of the longest of heads [begin, end).
  std::int64_t longest(std::int32_t begin, std::int32_t end) const {
    std::int64_t tokens = 0;
    for (std::int32_t i = begin; i < end; ++i) tokens = std::max<std::int64_t>(tokens, rows_[i].tokens);
    return tokens;
  }
  void pack() {
    std::int64_t const rows = call_.shape.short_block_rows();
    float* next = memory_;
    for (std::int32_t i = 0; i < count_; ++i, next += call_.shape.short_row_floats(rows)) {
      float* const products = next + query_block_floats(rows, call_.shape.head_dim);
      heads_[i] = {call_.pack(rows_[i], next), products, products + rows * tile_tokens};
      kvevict::fill_n(products, rows * (tile_tokens + lanes), 0.0f);
    }
    sums_ = next, keys_ = next + std::int64_t{call_.shape.group} * tile_tokens;
    kvevict::fill_n(keys_, keys_abreast * padded(call_.shape.head_dim, lanes), 0.0f);
  }

  /// Some row of head i may see that token.
  bool needs(std::int32_t i, std::int64_t token) const {
    return token < rows_[i].tokens && !heads_[i].queries.sees_none(token / tile_tokens * tile_tokens);
  }

  /// The products of all heads with the tile that starts at token `first`.
  void multiply(std::int64_t first) {
    component const& keys = call_.keys();
    if (keys.is_quantised() || keys.rows.n_runs != 1 || keys.width() % lanes != 0 ||
        call_.view.second_keys() != nullptr)
      return multiply_gathered(first);
    bool const together = keys.rows.heads_together() && !call_.view.pages.per_head();
    with_type(keys.type, [&](auto type) {
      if (together) return multiply_heads<decltype(type)>(first, 0, count_);
      for (std::int32_t i = 0; i < count_; ++i) multiply_heads<decltype(type)>(first, i, i + 1);
    });
  }

  /// Heads [begin, end), whose keys of a token lie beside each other; those of the next tokens are fetched.
  template <class T> void multiply_heads(std::int64_t first, std::int32_t begin, std::int32_t end) {
    component const& keys = call_.keys();
    row_map const& m = keys.rows;
    auto const width = static_cast<std::int32_t>(keys.width());
    std::int64_t const tokens = longest(begin, end);
    if (first >= tokens) return;
    std::byte const* at[tile_tokens + tokens_ahead];
    row_addresses(call_.view, keys, rows_[begin].b, rows_[begin].h, first,
                  static_cast<int>(std::min<std::int64_t>(tile_tokens + tokens_ahead, tokens - first)),
                  tile_tokens + tokens_ahead, at);
    for (int j = 0; j < std::min<std::int64_t>(tile_tokens, tokens - first); j += keys_abreast)
      for (std::int32_t i = begin; i < end; ++i) {
        if (!needs(i, first + j)) continue;
        std::int64_t const to_head = (rows_[i].h - rows_[begin].h) * m.head_stride;
        std::byte const* of_head[keys_abreast];
        for (int k = 0; k < keys_abreast; ++k) {
          of_head[k] = at[j + k] + to_head;
          fetch_row(at[j + k + tokens_ahead] + to_head, m);
        }
        multiply_keys(heads_[i].queries, width, heads_[i].products + j, [&](int k, std::int32_t d) {
          return load_as_float<T>(of_head[k] + d * static_cast<std::int32_t>(sizeof(T)));
        });
      }
  }

  /// Of keys that are not whole vectors side by side: decoded, or put together from parts.
  void multiply_gathered(std::int64_t first) {
    std::int32_t const width = call_.shape.head_dim;
    std::int64_t const stride = padded(width, lanes);
    for (std::int32_t i = 0; i < count_; ++i)
      for (int j = 0; j < tile_tokens && needs(i, first + j); j += keys_abreast) {
        for (int k = 0; k < keys_abreast; ++k) {
          std::int64_t const token = std::min<std::int64_t>(first + j + k, rows_[i].tokens - 1);
          float* const to = keys_ + k * stride;
          read_token(call_.view, call_.keys(), rows_[i].b, rows_[i].h, token, to);
          if (component const* const second = call_.view.second_keys())
            read_token(call_.view, *second, rows_[i].b, rows_[i].h, token, to + call_.keys().width());
        }
        multiply_keys(heads_[i].queries, width, heads_[i].products + j,
                      [&](int k, std::int32_t d) { return load(keys_ + k * stride + d); });
      }
  }

  void sum_tile(head const& of, window_row const& w, std::int64_t first) {
    query_block const& q = of.queries;
    kvevict::fill_n(sums_, std::int64_t{call_.shape.group} * tile_tokens, 0.0f);
    bool const unseen = q.sees_none(first);
    for (int r = 0; r < q.rows && !unseen; r += row_block) {
      vec z[row_block][tile_vectors];
      std::memcpy(z, of.products + r * tile_tokens, sizeof z);
      finish_logits(q, r, first, z);
      add_weights(z, q, r, w.per_sum(), sums_, of.checked);
    }
    call_.put(w, first, sums_);
  }

  window_call<Entry> const& call_;
  window_row const* rows_;
  std::int32_t count_;
  float* memory_;
  head heads_[short_rows_at_once / row_block] = {};
  float *sums_ = nullptr, *keys_ = nullptr;  // (G, tile_tokens) of one head; (keys_abreast, D)
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
