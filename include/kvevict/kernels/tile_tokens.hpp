// SPDX-License-Identifier: Apache-2.0
// A tile of tokens: rows of any layout and element type gathered into one packed form, what is quantised decoded.
//
//   tokens   (D, tile_tokens) floats, lanes are tokens; D padded with zeros to whole vectors, missing tokens repeat the
//   last one
#pragma once

#include <algorithm>

#include <kvevict/cache/coded_rows.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/fill.hpp>
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

/// The lines of a row's first run come into the second-level cache. Always inline: g++ 12 leaves out calls of a
/// function that does nothing but this.
[[gnu::always_inline]] inline void fetch_row(std::byte const* row, row_map const& m) {
  for (std::int32_t b = 0; b < m.run_bytes; b += 128)
    __builtin_prefetch(row + b, 0, 2), __builtin_prefetch(row + b + 64, 0, 2);
}

/// Those of a chunk that is no whole vector: of several runs, or at the end of a row.
template <class T>
[[gnu::noinline]] vec read_parts(std::byte const* row, row_map const& m, std::int32_t first, std::int32_t width) {
  constexpr auto size = static_cast<std::int32_t>(sizeof(T));
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
/// Elements [first, first + lanes) of a row as floats, zeros beyond its width.
template <class T>
[[gnu::always_inline]] inline vec read_chunk(std::byte const* row, row_map const& m, std::int32_t first,
                                             std::int32_t width) {
  if (m.n_runs == 1 && first + lanes <= width)
    return load_as_float<T>(row + first * static_cast<std::int32_t>(sizeof(T)));
  return read_parts<T>(row, m, first, width);
}

/// One token's row as floats: decoded, or put together from parts.  → (width)
template <class Entry>
void read_token(layer_view<Entry> const& view, component const& c, std::int32_t b, std::int32_t h, std::int64_t token,
                float* to) {
  auto const width = static_cast<std::int32_t>(c.width());
  if (c.is_quantised()) {
    row_code const code(c);
    coded_row const from = coded_rows<Entry>(view, c, b, h)(token);
    for (std::int32_t d = 0; d < width; d += most_block) code.decode(from, d, std::min(most_block, width - d), to + d);
    return;
  }
  std::byte const* row;
  row_addresses(view, c, b, h, token, 1, 1, &row);
  with_type(c.type, [&](auto type) {
    for (std::int32_t d = 0; d < width; d += lanes)
      store_some(to + d, read_chunk<decltype(type)>(row, c.rows, d, width), width - d);
  });
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

/// The keys of the tile from `first` on, which are fetched row by row, in `steps` steps, while the tile before it is
/// worked on: more at once would wait in front of what the work itself reads.
class tile_ahead {
 public:
  tile_ahead() = default;  // none
  template <class Entry>
  tile_ahead(layer_view<Entry> const& view, std::int32_t b, std::int32_t h, std::int64_t first, std::int64_t tokens,
             std::int64_t steps)
      : map_(&view.find(role::k)->rows),
        steps_(steps),
        left_(std::clamp<std::int64_t>(tokens - first, 0, tile_tokens)) {
    if (left_ == 0) return;
    each_ = left_;
    auto const count = static_cast<int>(left_);
    row_addresses(view, *view.find(role::k), b, h, first, count, count, rows_);
    for (int i = 0; i < count; ++i) __builtin_prefetch(rows_[i], 0, 2);  // pages that are not known are found together
  }
  [[gnu::always_inline]] void step() {
    for (due_ += each_; due_ >= steps_ && left_ > 0; due_ -= steps_) fetch_row(rows_[--left_], *map_);
  }

 private:
  row_map const* map_ = nullptr;
  std::int64_t steps_ = 1, left_ = 0, each_ = 0, due_ = 0;
  std::byte const* rows_[tile_tokens];
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
