// SPDX-License-Identifier: Apache-2.0
// Which page holds token t of (sequence, head).
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A page id without its tag bits.
template <class Id> constexpr Id masked(Id entry, std::int64_t mask) {
  return static_cast<Id>(static_cast<std::int64_t>(entry) & mask);
}

/// Page ids of a batch of sequences, dense or CSR, one table for all KV heads or one per head, of one layer or a stack;
/// non-owning.
///
///   dense   entry(b,h,i) = entries[l·layer_stride + s·seq_stride + h·head_stride + i],  i < columns
///   CSR     entry(b,h,i) = entries[row_begin[l·layer_stride + r] + i],      r = per_head ? s·heads + h : s
///   null    identity: the page of sequence s is s and its slots are the tokens (contiguous [B,H,N,D] caches)
///
/// A stack is a batch of L·S sequences: b = l·S + s is sequence s in layer l, and everything that is given per sequence
/// (lengths, rows of evidence, budgets, results) has L·S entries; only the table and, with it, rows of positions may be
/// common to all layers. One layer: l = 0, s = b. Entry is int32_t, int64_t or std::byte* (tables of page addresses).
/// `index_mask` strips tag bits of integer entries.
template <class Entry = std::int32_t> struct page_table {
  static_assert(
      std::is_same_v<Entry, std::int32_t> || std::is_same_v<Entry, std::int64_t> || std::is_same_v<Entry, std::byte*>,
      "page_table: an entry is std::int32_t, std::int64_t or std::byte*; convert the engine's table to one of them");
  using entry_type = Entry;
  static constexpr bool holds_pointers = std::is_same_v<Entry, std::byte*>;

  Entry const* entries = nullptr;
  std::int32_t const* row_begin = nullptr;  // (rows + 1), CSR only
  std::int64_t seq_stride = 0, head_stride = 0;
  std::int32_t sequences = 0, heads = 0;
  std::int32_t columns = 0;  // most pages of a row; with CSR only a device context reads it
  std::int32_t layers = 1;   // of a stack; divides sequences
  // entries (CSR: rows of row_begin) from a layer's table to the next; 0: all layers go by one table
  std::int64_t layer_stride = 0;
  std::int32_t page_size = 0;
  std::int64_t index_mask = ~std::int64_t{0};
  // bytes that every page of a table of addresses is aligned to; a device reads and moves as much at once
  std::int32_t alignment = 1;

  constexpr bool is_identity() const { return entries == nullptr; }
  /// True when every KV head has a table of its own, so that heads may keep different counts.
  constexpr bool per_head() const { return head_stride != 0; }
  constexpr std::int64_t rows() const { return std::int64_t{sequences} * (per_head() ? heads : 1); }
  /// Layers of a stack that go by each row of the table: all, or one, as in a contiguous cache.
  constexpr std::int32_t layers_a_row() const {
    return layer_stride == 0 && (entries != nullptr || row_begin != nullptr) ? layers : 1;
  }

  constexpr std::int32_t layer_of(std::int32_t b) const { return layers == 1 ? 0 : b / (sequences / layers); }
  constexpr std::int32_t sequence_of(std::int32_t b) const { return layers == 1 ? b : b % (sequences / layers); }

  /// The most tokens that a row can have, from what the view itself says: what a device context sizes grids and scratch
  /// by.
  constexpr std::int64_t most_tokens() const { return std::int64_t{is_identity() ? 1 : columns} * page_size; }

  /// Tokens that the table can address in row (b, h).
  constexpr std::int64_t capacity(std::int32_t b, std::int32_t h) const {
    std::int64_t const r = row_of(b, h);
    std::int64_t const pages = is_identity() ? 1 : row_begin != nullptr ? row_begin[r + 1] - row_begin[r] : columns;
    return pages * page_size;
  }

  /// `behind`: of a component that has pages of its own, see component::table_offset.
  constexpr Entry entry(std::int32_t b, std::int32_t h, std::int64_t i, std::int64_t behind = 0) const {
    if constexpr (holds_pointers)
      return entries_of(b, h)[behind + i];
    else
      return is_identity() ? static_cast<Entry>(sequence_of(b)) : masked(entries_of(b, h)[behind + i], index_mask);
  }
  /// Entries of row (b, h); not of the identity.
  constexpr Entry const* entries_of(std::int32_t b, std::int32_t h) const {
    if (row_begin != nullptr) return entries + row_begin[row_of(b, h)];
    return entries + (layer_of(b) * layer_stride + sequence_of(b) * seq_stride + h * head_stride);
  }

  /// Row of `row_begin`.
  constexpr std::int64_t row_of(std::int32_t b, std::int32_t h) const {
    std::int64_t const s = sequence_of(b);
    return layer_of(b) * layer_stride + (per_head() ? s * heads + h : s);
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
