// SPDX-License-Identifier: Apache-2.0
// Who owns which byte of a cache, by brute force: every byte of every row of every component is marked. Written from
// the documents of the view, with nothing of validate().
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/cache/layer_view.hpp>

namespace support {

enum class ownership : std::uint8_t { sound, shared, outside, unequal };

inline char const* name_of(ownership x) {
  constexpr char const* names[] = {"sound", "a byte is shared", "a page lies outside the pool",
                                   "layers with common positions differ in length"};
  return names[static_cast<int>(x)];
}

/// Marks the bytes of one view after the other; its memory grows and stays.
///
/// A row of the table (of a sequence, or of a sequence and head with a table of its own; a contiguous sequence is one)
/// owns all slots of its pages in use, in all components but aliases. Sound: no byte is marked twice by a row, nor by
/// two rows of which one may write it; and every page lies in the pool, whose pages are page_count pieces: as a whole
/// page where pages do not collide, else a piece of page_stride bytes at most, so that a page takes several. Positions
/// without a stride from layer to layer are all layers' own where these have one table, and are then as long in all.
class byte_owners {
 public:
  template <class Entry> ownership judge(kvevict::layer_view<Entry> const& v) {
    claims_.clear();
    bool unequal = false;
    bool const keys_apart = v.find(kvevict::role::k)->rows.layer_stride != 0;
    for (kvevict::component const& c : v)
      unequal = unequal || (keys_apart && of_all_layers(v, c) && !as_long_in_all_layers(v));
    for (std::int32_t i = 0; i < v.component_count; ++i)
      if (!claim(v, v.components[static_cast<std::size_t>(i)])) return ownership::outside;
    if (!mark()) return ownership::shared;
    return unequal ? ownership::unequal : ownership::sound;
  }

 private:
  struct claimed {
    std::int64_t first;
    std::int32_t bytes, row;
    bool written;
  };

  /// Every run of the rows in use; false when one lies outside the pool.
  template <class Entry> bool claim(kvevict::layer_view<Entry> const& v, kvevict::component const& c) {
    auto const& t = v.pages;
    bool const identity = t.entries == nullptr, own_tables = t.head_stride != 0,
               ids = !kvevict::page_table<Entry>::holds_pointers;
    std::int32_t const per_layer = t.sequences / t.layers, P = t.page_size;
    kvevict::row_map const& m = c.rows;
    bool const pieces = ids && m.page_stride > 0 && collides(v, c);
    for (std::int32_t b = 0; b < t.sequences; ++b)
      for (std::int32_t h = 0; h < t.heads; ++h) {
        std::int32_t const layer = b / per_layer, s = b % per_layer;
        std::int32_t const n = v.lengths.data[b * v.lengths.seq_stride + h * v.lengths.head_stride];
        std::int32_t const fixed = v.read_only == nullptr ? 0 : v.read_only[b];
        bool const common = m.head_stride == 0 && (!own_tables || identity);  // a row of bytes for all heads
        if (common && claimed_by_lower_head(v, b, h)) continue;
        bool const for_all = of_all_layers(v, c);
        for (std::int32_t i = 0; i * P < n; ++i) {
          std::int64_t page = identity ? s : 0, start = 0;
          if (!identity) {
            std::int64_t const of_head = own_tables ? h : 0;
            std::int64_t const at =
                t.row_begin != nullptr
                    ? t.row_begin[layer * t.layer_stride + (own_tables ? std::int64_t{s} * t.heads + h : s)] + i
                    : layer * t.layer_stride + s * t.seq_stride + of_head * t.head_stride + i;
            Entry const named = t.entries[at + c.table_offset];
            if constexpr (kvevict::page_table<Entry>::holds_pointers)
              start = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(named));
            else
              page = static_cast<std::int64_t>(named) & t.index_mask;
          }
          if (ids && (page < 0 || page >= m.page_count)) return false;
          if (c.alias_of >= 0) continue;
          for (std::int32_t slot = 0; slot < P; ++slot)
            for (std::int32_t run = 0; run < m.n_runs; ++run) {
              if (pieces && !in_pieces(v, m, page, layer, h, slot, run)) return false;
              std::int64_t const address =
                  (ids ? static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(m.base)) : start) + m.offset +
                  layer * m.layer_stride + (ids ? page * m.page_stride : 0) + h * m.head_stride + slot * m.slot_stride +
                  run * m.run_stride;
              std::int32_t const row = own_tables && !identity ? b * t.heads + h : b * t.heads;
              bool const written = for_all ? any_layer_writes(v, s, n, (i + 1) * P) : fixed < n && (i + 1) * P > fixed;
              if (layer == 0 || !for_all || !written) claims_.push_back({address, m.run_bytes, row, written});
            }
        }
      }
    return true;
  }
  template <class Entry>
  static bool claimed_by_lower_head(kvevict::layer_view<Entry> const& v, std::int32_t b, std::int32_t h) {
    for (std::int32_t g = 0; g < h; ++g)
      if (v.lengths.data[b * v.lengths.seq_stride + g * v.lengths.head_stride] > 0) return true;
    return false;
  }

  template <class Entry> static bool of_all_layers(kvevict::layer_view<Entry> const& v, kvevict::component const& c) {
    bool const one_table = v.pages.entries == nullptr || v.pages.layer_stride == 0;
    return c.what == kvevict::role::position && c.rows.layer_stride == 0 && v.pages.layers > 1 && one_table;
  }
  template <class Entry>
  static bool any_layer_writes(kvevict::layer_view<Entry> const& v, std::int32_t s, std::int32_t n, std::int32_t end) {
    std::int32_t const S = v.pages.sequences / v.pages.layers;
    for (std::int32_t b = s; b < v.pages.sequences; b += S) {
      std::int32_t const fixed = v.read_only == nullptr ? 0 : v.read_only[b];
      if (fixed < n && end > fixed) return true;
    }
    return false;
  }
  template <class Entry> static bool as_long_in_all_layers(kvevict::layer_view<Entry> const& v) {
    std::int32_t const S = v.pages.sequences / v.pages.layers;
    for (std::int32_t b = S; b < v.pages.sequences; ++b)
      for (std::int32_t h = 0; h < v.pages.heads; ++h)
        if (v.lengths.data[b * v.lengths.seq_stride + h * v.lengths.head_stride] !=
            v.lengths.data[b % S * v.lengths.seq_stride + h * v.lengths.head_stride])
          return false;
    return true;
  }

  /// Whether pages of neighbouring ids share bytes, so that an id cannot count pages.
  template <class Entry> bool collides(kvevict::layer_view<Entry> const& v, kvevict::component const& c) {
    kvevict::row_map const& m = c.rows;
    std::int64_t const layers = m.layer_stride == 0 ? 1 : v.pages.layers,
                       heads = m.head_stride == 0 ? 1 : v.pages.heads;
    std::int64_t const end = (layers - 1) * m.layer_stride + (m.page_count - 1) * m.page_stride +
                             (heads - 1) * m.head_stride + (v.pages.page_size - 1) * m.slot_stride +
                             (m.n_runs - 1) * m.run_stride + m.run_bytes;
    pool_.assign(static_cast<std::size_t>(end), 0);
    for (std::int64_t l = 0; l < layers; ++l)
      for (std::int64_t p = 0; p < m.page_count; ++p)
        for (std::int64_t h = 0; h < heads; ++h)
          for (std::int64_t s = 0; s < v.pages.page_size; ++s)
            for (std::int64_t r = 0; r < m.n_runs; ++r)
              for (std::int64_t x = 0; x < m.run_bytes; ++x) {
                auto& byte = pool_[static_cast<std::size_t>(l * m.layer_stride + p * m.page_stride + h * m.head_stride +
                                                            s * m.slot_stride + r * m.run_stride + x)];
                if (byte != 0) return true;
                byte = 1;
              }
    return false;
  }
  /// A stride below page_stride lies within a piece, one beyond all pieces between pools; the rest counts pieces.
  template <class Entry>
  static bool in_pieces(kvevict::layer_view<Entry> const& v, kvevict::row_map const& m, std::int64_t page,
                        std::int64_t layer, std::int64_t h, std::int64_t slot, std::int64_t run) {
    std::int64_t const extents[] = {v.pages.layers, v.pages.heads, v.pages.page_size, m.n_runs},
                       strides[] = {m.layer_stride, m.head_stride, m.slot_stride, m.run_stride},
                       index[] = {layer, h, slot, run};
    std::int64_t piece = m.run_bytes, at = page * m.page_stride;
    for (int i = 0; i < 4; ++i) piece += strides[i] < m.page_stride ? (extents[i] - 1) * strides[i] : 0;
    std::int64_t const end = (m.page_count - 1) * m.page_stride + std::min(piece, m.page_stride);
    for (int i = 0; i < 4; ++i) at += strides[i] >= m.page_stride && strides[i] < end ? index[i] * strides[i] : 0;
    return at + piece <= end;
  }

  /// Written bytes first, then row by row those that are only read; false when a byte is marked twice.
  bool mark() {
    if (claims_.empty()) return true;
    std::int64_t low = claims_[0].first, high = low;
    for (claimed const& x : claims_) low = std::min(low, x.first), high = std::max(high, x.first + x.bytes);
    written_.assign(static_cast<std::size_t>(high - low), 0);
    reader_.assign(static_cast<std::size_t>(high - low), -1);
    for (claimed const& x : claims_)
      for (std::int64_t i = x.first - low; x.written && i < x.first - low + x.bytes; ++i)
        if (written_[static_cast<std::size_t>(i)]++ != 0) return false;
    std::stable_sort(claims_.begin(), claims_.end(), [](claimed const& x, claimed const& y) { return x.row < y.row; });
    for (claimed const& x : claims_)
      for (std::int64_t i = x.first - low; !x.written && i < x.first - low + x.bytes; ++i) {
        auto const at = static_cast<std::size_t>(i);
        if (written_[at] != 0 || reader_[at] == x.row) return false;
        reader_[at] = x.row;
      }
    return true;
  }

  std::vector<claimed> claims_;
  std::vector<std::uint8_t> pool_, written_;
  std::vector<std::int32_t> reader_;
};

}  // namespace support
