// SPDX-License-Identifier: Apache-2.0
// Which page holds token t of (sequence, head).
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kvevict {
inline namespace v0 {

/// Page ids of a batch of sequences, dense or CSR, one table for all KV heads or one per head; non-owning.
///
///   dense   entry(b,h,i) = entries[b·seq_stride + h·head_stride + i],             i < columns
///   CSR     entry(b,h,i) = entries[row_begin[r] + i],                             r = per_head ? b·heads + h : b
///   null    identity: the page of sequence b is b and its slots are the tokens (contiguous [B,H,N,D] caches)
///
/// Entry is int32_t, int64_t or std::byte* (tables of page addresses). `index_mask` strips tag bits of integer entries.
template <class Entry = std::int32_t> struct page_table {
  static_assert(std::is_same_v<Entry, std::int32_t> || std::is_same_v<Entry, std::int64_t> || std::is_same_v<Entry, std::byte*>,
                "page_table: an entry is std::int32_t, std::int64_t or std::byte*; convert the engine's table to one of them");
  using entry_type = Entry;
  static constexpr bool holds_pointers = std::is_same_v<Entry, std::byte*>;

  Entry const* entries = nullptr;
  std::int32_t const* row_begin = nullptr;  // (rows + 1), CSR only
  std::int64_t seq_stride = 0, head_stride = 0;
  std::int32_t sequences = 0, heads = 0;
  std::int32_t columns = 0;  // most pages of a row; with CSR only a device context reads it
  std::int32_t page_size = 0;
  std::int64_t index_mask = ~std::int64_t{0};
  std::int32_t alignment = 1;  // bytes that every page of a table of addresses is aligned to; a device reads and moves as much at once

  constexpr bool is_identity() const { return entries == nullptr; }
  /// True when every KV head has a table of its own, so that heads may keep different counts.
  constexpr bool per_head() const { return head_stride != 0; }
  constexpr std::int64_t rows() const { return std::int64_t{sequences} * (per_head() ? heads : 1); }

  /// The most tokens that a row can have, from what the view itself says: what a device context sizes grids and scratch by.
  constexpr std::int64_t most_tokens() const { return std::int64_t{is_identity() ? 1 : columns} * page_size; }

  /// Tokens that the table can address in row (b, h).
  constexpr std::int64_t capacity(std::int32_t b, std::int32_t h) const {
    std::int64_t const r = per_head() ? std::int64_t{b} * heads + h : b;
    std::int64_t const pages = is_identity() ? 1 : row_begin != nullptr ? row_begin[r + 1] - row_begin[r] : columns;
    return pages * page_size;
  }

  constexpr Entry entry(std::int32_t b, std::int32_t h, std::int64_t i) const {
    if constexpr (holds_pointers) return entries[index(b, h, i)];
    else return is_identity() ? static_cast<Entry>(b)
                              : static_cast<Entry>(static_cast<std::int64_t>(entries[index(b, h, i)]) & index_mask);
  }

 private:
  constexpr std::int64_t index(std::int32_t b, std::int32_t h, std::int64_t i) const {
    if (row_begin != nullptr) return row_begin[per_head() ? std::int64_t{b} * heads + h : b] + i;
    return b * seq_stride + h * head_stride + i;
  }
};

}  // namespace v0
}  // namespace kvevict
