// SPDX-License-Identifier: Apache-2.0
// Logits of a block of query rows and a tile of tokens. Every layout and element type is first gathered, what is
// quantised decoded, into one packed form, and each dot product is one chain of additions over d, so that no bit depends on layout, page size, threads or
// the tile's neighbours.
//
//   tokens   (D, tile_tokens) floats, lanes are tokens; D padded with zeros to whole vectors, missing tokens repeat the
//   last one
//   queries  (rows/row_block, D/lanes, row_block, lanes) floats, scaled; rows padded to whole blocks by copies
#pragma once

#include <algorithm>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/row_code.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/window.hpp>
#include <kvevict/kernels/shuffle.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
// The product of one query block and one tile fills the register file: row_block × tile_vectors sums, tile_vectors
// tokens, 1 query. A vector holds one number of every row of a block.
inline constexpr int row_block = lanes == 16 ? 8 : 4;
#if defined(__ARM_NEON)
inline constexpr int tile_vectors = 6;  // 32 registers, as AVX-512 has
#else
inline constexpr int tile_vectors = 3;
#endif
static_assert(lanes % row_block == 0);
inline constexpr int tile_tokens = tile_vectors * lanes;

constexpr std::int64_t tile_floats(std::int64_t head_dim) { return padded(head_dim, lanes) * tile_tokens; }

/// Start of the rows of `count` tokens from `first`; beyond them the last one again, up to `wanted`.
template <class Entry>
void row_addresses(layer_view<Entry> const& view, component const& c, std::int32_t b, std::int32_t h,
                   std::int64_t first, int count, int wanted, std::byte const** out) {
  token_rows<Entry> const rows = view.rows_of(c, b, h);
  std::int64_t const size = rows.page_size;
  std::int64_t page = first / size, slot = first - page * size;
  for (int i = 0; i < count; ++page, slot = 0) {
    std::byte const* p = rows.slot(page, slot);
    for (; i < count && slot < size; ++slot, p += rows.slot_stride) out[i++] = p;
  }
  for (int i = count; i < wanted; ++i) out[i] = out[count - 1];
}

/// Elements [first, first + lanes) of a row as floats, zeros beyond its width.
template <class T> vec read_chunk(std::byte const* row, row_map const& m, std::int32_t first, std::int32_t width) {
  constexpr auto size = static_cast<std::int32_t>(sizeof(T));
  if (m.n_runs == 1 && first + lanes <= width) return load_as_float<T>(row + first * size);
  float out[lanes] = {};
  std::int32_t const per_run = m.run_bytes / size;
  std::int32_t run = first / per_run, at = first - run * per_run;
  for (int i = 0; i < std::min(lanes, width - first); ++i) {
    T x;
    std::memcpy(&x, row + run * m.run_stride + at * size, sizeof x);
    out[i] = to_float(x);
    if (++at == per_run) at = 0, ++run;
  }
  return load(out);
}

/// Decodes tokens of a quantised component into a tile.
template <class Entry>
[[gnu::noinline]] void pack_coded_tokens(layer_view<Entry> const& view, component const& c, std::int32_t b,
                                         std::int32_t h, std::int64_t first, std::int64_t tokens, float* tile) {
  row_code const code(c);
  coded_rows<Entry> const rows(view, c, b, h);
  float x[lanes][most_block];
  for (int v = 0; v < tile_tokens; v += lanes)
    for (std::int32_t from = 0; from < code.width(); from += most_block) {
      std::int32_t const count = std::min(most_block, code.width() - from);
      auto const end = static_cast<std::int32_t>(padded(count, lanes));
      for (int i = 0; i < lanes; ++i) {
        code.decode(rows(std::min(first + v + i, tokens - 1)), from, count, x[i]);
        kvevict::fill(x[i] + count, x[i] + end, 0.0f);
      }
      for (std::int32_t d = 0; d < end; d += lanes) {
        vec y[lanes];
        unroll<lanes>([&](auto i) { y[i] = load(x[i] + d); });
        transpose(y);
        unroll<lanes>([&](auto i) { store(tile + (from + d + i) * tile_tokens + v, y[i]); });
      }
    }
}

/// Gathers up to tile_tokens tokens of row (b, h), which has `tokens`, from `first` < tokens into a tile.  → (D,
/// tile_tokens)
template <class Entry>
void pack_tokens(layer_view<Entry> const& view, component const& c, std::int32_t b, std::int32_t h, std::int64_t first,
                 std::int64_t tokens, float* tile) {
  if (c.is_quantised()) return pack_coded_tokens(view, c, b, h, first, tokens, tile);
  std::byte const* rows[tile_tokens];
  row_addresses(view, c, b, h, first, static_cast<int>(std::min<std::int64_t>(tile_tokens, tokens - first)),
                tile_tokens, rows);
  auto const width = static_cast<std::int32_t>(c.width());
  with_type(c.type, [&](auto type) {
    using T = decltype(type);
    for (int v = 0; v < tile_tokens; v += lanes)
      for (std::int32_t d = 0; d < width; d += lanes) {
        vec x[lanes];
        unroll<lanes>([&](auto i) { x[i] = read_chunk<T>(rows[v + i], c.rows, d, width); });
        transpose(x);
        unroll<lanes>([&](auto i) { store(tile + (d + i) * tile_tokens + v, x[i]); });
      }
  });
}

/// The same of keys, whose second part, if any, lies in another component: behind the first one, whose width is a
/// multiple of all lanes.
template <class Entry>
void pack_keys(layer_view<Entry> const& view, std::int32_t b, std::int32_t h, std::int64_t first, std::int64_t tokens,
               float* tile) {
  component const& keys = *view.find(role::k);
  pack_tokens(view, keys, b, h, first, tokens, tile);
  if (component const* const second = view.second_keys())
    pack_tokens(view, *second, b, h, first, tokens, tile + keys.width() * tile_tokens);
}

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
  for (std::int32_t r = 0; r < padded(out.rows, row_block); ++r) {
    std::int32_t const w = r % window, hq = std::min(r / window, group - 1) + h * group;
    float const gain = (gains == nullptr ? 1.0f : gains[w]) * log2_e;
    float const factor = out.capped ? q.logit_scale() / q.softcap : q.logit_scale() * gain;
    out.after[r] = q.softcap * gain;
    sight const s = in.of(first + w);
    out.from[r] = s.from, out.to[r] = s.to;
    out.all = {std::max(out.all.from, s.from), std::min(out.all.to, s.to)};
    out.some = {std::min(out.some.from, s.from), std::max(out.some.to, s.to)};
    auto const* row = static_cast<std::byte const*>(q.data) +
                      ((in.first + first + w) * q.token_stride + hq * q.head_stride) * size_of(q.type);
    float* to = out.packed + ((r / row_block) * chunks * row_block + r % row_block) * lanes;
    with_type(q.type, [&](auto type) {
      for (std::int32_t d = 0; d < q.head_dim; d += lanes, to += row_block * lanes)
        store(to, read_chunk<decltype(type)>(row, contiguous, d, q.head_dim) * factor);
    });
  }
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
  for (std::int64_t d = 0; d < head_dim; d += lanes, q += row_block * lanes)
    for (int i = 0; i < lanes; ++i, tile += tile_tokens) {
      vec k[tile_vectors];
      unroll<tile_vectors>([&](auto v) { k[v] = load(tile + v * lanes); });
      unroll<row_block>([&](auto r) {
        vec const x = splat(q[r * lanes + i]);
        unroll<tile_vectors>([&](auto v) { sum[r][v] = multiply_add(x, k[v], sum[r][v]); });
      });
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

/// Base-2 logits of rows [row, row + row_block) for the tile that starts at token `first`; −∞ where a row does not see
/// the token.
inline void logits(query_block const& q, int row, float const* tile, std::int64_t first,
                   vec (&z)[row_block][tile_vectors]) {
  multiply(q.block(row), tile, q.head_dim, z);
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

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
