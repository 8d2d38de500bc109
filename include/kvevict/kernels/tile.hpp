// SPDX-License-Identifier: Apache-2.0
// Logits of a block of query rows and a tile of tokens (tile_tokens.hpp). Each dot product is one chain of additions
// over d, so that no bit depends on layout, page size, threads or the tile's neighbours.
//
//   queries  (rows/row_block, D/lanes, row_block, lanes) floats, scaled; rows padded to whole blocks by copies
#pragma once

#include <algorithm>
#include <limits>

#include <kvevict/core/queries.hpp>
#include <kvevict/core/window.hpp>
#include <kvevict/kernels/exp2.hpp>
#include <kvevict/kernels/tile_tokens.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Some query rows of the G heads of one KV head: row r is window row r % window of query head r / window.
struct query_block {
  float* packed;            // queries × scale, see above
  float* lse;               // (rows) base 2; +∞ where a row sees nothing
  float* after;             // (rows) multiplies tanh under a softcap
  std::int32_t *from, *to;  // (rows) what it sees
  std::int32_t rows, window, head_dim;
  bool capped;
  sight all, some, always;  // orders that every row sees (none with `orders`); that any may see; see window_rows
  std::int32_t tokens;      // of the row of the cache
  std::int32_t const* orders = nullptr;  // of its tokens, or null: their slots

  float const* block(int row) const { return packed + row * padded(head_dim, lanes); }
  bool sees_whole(std::int64_t first) const { return first >= all.from && first + tile_tokens <= all.to; }
  bool row_sees_any(int row) const { return kvevict::sees_any({from[row], to[row]}, always, tokens, orders); }
  /// No row sees a token of the tile.
  bool sees_none(std::int64_t first) const {
    return orders == nullptr && (first >= some.to || (first + tile_tokens <= some.from &&
                                                      (first >= always.to || first + tile_tokens <= always.from)));
  }
};

/// Floats of a block of that many rows, and one taken from scratch.
constexpr std::int64_t query_block_floats(std::int64_t rows, std::int64_t head_dim) {
  return padded(rows, row_block) * (padded(head_dim, lanes) + 4);
}
inline query_block make_query_block(float* memory, std::int32_t rows, std::int32_t head_dim) {
  std::int64_t const n = padded(rows, row_block);
  float* const rest = memory + n * padded(head_dim, lanes);
  auto* const bounds = reinterpret_cast<std::int32_t*>(rest + 2 * n);
  return {memory, rest, rest + n, bounds, bounds + n, 0, 0, head_dim, false, {}, {}, {}, 0};
}

/// Fills a block with window rows [first, first + window) of `in`, of the heads of KV head h, so that logits come out
/// in base 2. `gains` (one per window row) multiply the logits, or null.
inline void pack_queries(query_block& out, query_rows const& q, window_rows const& in, std::int32_t first,
                         std::int32_t window, std::int32_t h, std::int32_t group, float const* gains) {
  out.rows = window * group, out.window = window, out.capped = q.softcap != 0;
  out.all = sight_up_to(std::numeric_limits<std::int32_t>::max()), out.some = {out.all.to, out.all.from};
  out.always = in.always;
  constexpr float log2_e = 1.44269504088896341f;
  row_map const contiguous{nullptr, 0, 0, 0, 0, 0, 0, q.head_dim * size_of(q.type), 1};
  std::int64_t const chunks = padded(q.head_dim, lanes) / lanes;
  auto const address = [&](std::int32_t w, std::int32_t g) {
    return static_cast<std::byte const*>(q.data) +
           ((in.first + first + w) * q.token_stride + (h * group + g) * q.head_stride) * size_of(q.type);
  };
  auto const pack_row = [&](std::int32_t r, std::int32_t w, std::int32_t g) {
    float const gain = (gains == nullptr ? 1.0f : gains[w]) * log2_e;
    float const factor = out.capped ? q.logit_scale() / q.softcap : q.logit_scale() * gain;
    out.after[r] = q.softcap * gain;
    sight const s = in.of(first + w);
    out.from[r] = s.from, out.to[r] = s.to;
    out.all = {std::max(out.all.from, s.from), std::min(out.all.to, s.to)};
    out.some = {std::min(out.some.from, s.from), std::max(out.some.to, s.to)};
    std::byte const* const row = address(w, g);
    float* to = out.packed + ((r / row_block) * chunks * row_block + r % row_block) * lanes;
    with_type(q.type, [&](auto type) {
      using T = decltype(type);
      std::int32_t d = 0;
      for (; d + lanes <= q.head_dim; d += lanes, to += row_block * lanes)
        store(to, load_as_float<T>(row + d * static_cast<std::int32_t>(sizeof(T))) * factor);
      if (d < q.head_dim) store(to, read_chunk<T>(row, contiguous, d, q.head_dim) * factor);
    });
  };
  for (std::int32_t w = 0; w < window; ++w)  // as they lie in memory
    for (std::int32_t g = 0; g < group; ++g) {
      if (w + 1 < window) fetch_row(address(w + 1, g), contiguous);
      pack_row(g * window + w, w, g);
    }
  for (std::int32_t r = out.rows; r < padded(out.rows, row_block); ++r) pack_row(r, 0, group - 1);
}

/// The engine's LSE of window row w of query head hq, in base 2. −∞ says that it sees nothing: then, and where the
/// cache says so, its weights are 0.
inline float engine_lse(query_rows const& q, window_rows const& in, std::int32_t w, std::int64_t hq) {
  float const x = q.lse[(in.first + w) * q.lse_token_stride + hq * q.lse_head_stride];
  if (x == -__builtin_inff() || in.sees_none(w)) return __builtin_inff();
  return q.base == log_base::two ? x : x * 1.44269504088896341f;
}
/// That of a block.
inline void fill_lse(query_block& out, query_rows const& q, window_rows const& in, std::int32_t first, std::int32_t h,
                     std::int32_t group) {
  for (std::int32_t r = 0; r < out.rows; ++r)
    out.lse[r] = engine_lse(q, in, first + r % out.window, std::int64_t{h} * group + r / out.window);
}

/// z = q · tile for one block of query rows.  → (row_block, tile_tokens)
inline void multiply(float const* q, float const* tile, std::int64_t head_dim, vec (&z)[row_block][tile_vectors]) {
  vec sum[row_block][tile_vectors] = {};
  for (std::int64_t d = 0; d < head_dim; d += lanes, q += row_block * lanes) {
#pragma GCC unroll 4  // of more g++ 12 keeps sums in memory
    for (int i = 0; i < lanes; ++i, tile += tile_tokens) {
      vec k[tile_vectors];
      unroll<tile_vectors>([&](auto v) { k[v] = in_register(load(tile + v * lanes)); });
      unroll<row_block>([&](auto r) {
        vec const x = splat(q[r * lanes + i]);
        unroll<tile_vectors>([&](auto v) { sum[r][v] = multiply_add(x, k[v], sum[r][v]); });
      });
    }
  }
  unroll<row_block>([&](auto r) { unroll<tile_vectors>([&](auto v) { z[r][v] = sum[r][v]; }); });
}

/// Token numbers of a vector, starting at `first`.
inline ivec count_from(std::int64_t first, int step = 1) {
  ivec x = {};
  for (int i = 0; i < lanes; ++i) x[i] = static_cast<std::int32_t>(first) + i * step;
  return x;
}

/// Orders of the tokens of a vector, starting at `first`; beyond the last one an order that no row sees.
inline ivec orders_from(query_block const& q, std::int64_t first) {
  if (q.orders == nullptr) return count_from(first);
  ivec x = std::numeric_limits<std::int32_t>::max() - ivec{};
  if (first + lanes <= q.tokens) {
    std::memcpy(&x, q.orders + first, sizeof x);
    return x;
  }
  for (std::int64_t i = 0; i < std::min<std::int64_t>(lanes, q.tokens - first); ++i) x[i] = q.orders[first + i];
  return x;
}

/// From products to base-2 logits of rows [row, row + row_block) for the tile that starts at token `first`; −∞ where a
/// row does not see the token.
inline void finish_logits(query_block const& q, int row, std::int64_t first, vec (&z)[row_block][tile_vectors]) {
  if (q.capped)
    for (int r = 0; r < row_block; ++r)
      for (vec& x : z[r]) x = tanh(x) * q.after[row + r];
  if (q.sees_whole(first)) return;
  if (q.orders == nullptr && first >= q.all.from) {  // of the past, each row sees a beginning
    for (int v = 0; v < tile_vectors; ++v) {
      ivec const o = count_from(first + v * lanes);
      for (int r = 0; r < row_block; ++r) z[r][v] = o < q.to[row + r] ? z[r][v] : splat(-__builtin_inff());
    }
    return;
  }
  for (int v = 0; v < tile_vectors; ++v) {
    ivec const o = orders_from(q, first + v * lanes);
    ivec const always = (o >= q.always.from) & (o < q.always.to);
    for (int r = 0; r < row_block; ++r)
      z[r][v] = ((o < q.to[row + r]) & ((o >= q.from[row + r]) | always)) != 0 ? z[r][v] : splat(-__builtin_inff());
  }
}

/// Those logits of a packed tile.
inline void logits(query_block const& q, int row, float const* tile, std::int64_t first,
                   vec (&z)[row_block][tile_vectors]) {
  multiply(q.block(row), tile, q.head_dim, z);
  finish_logits(q, row, first, z);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
