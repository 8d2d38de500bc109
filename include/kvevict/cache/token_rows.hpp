// SPDX-License-Identifier: Apache-2.0
// Where the rows of one (sequence, head) lie in a component.
#pragma once

#include <cstddef>
#include <cstdint>

#include <kvevict/cache/page_table.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Addresses of rows, with all that does not depend on the token worked out once.
///
///   token t   page(entries[t / page_size]) + start + (t mod page_size)·slot_stride,    page(id) = base +
///   id·page_stride, or the address itself
template <class Entry> struct token_rows {
  Entry const* entries = nullptr;  // of this row; null: one page holds all
  std::int64_t index_mask = ~std::int64_t{0};
  std::byte* base = nullptr;
  std::int64_t start = 0, page_stride = 0, slot_stride = 0;
  std::int32_t page_size = 1;

  /// First byte of the row of token t ≥ 0. Tokens of a row are fewer than 2³¹: 32 bits divide faster.
  constexpr std::byte* operator()(std::int64_t t) const {
    std::uint32_t const token = static_cast<std::uint32_t>(t), i = token / static_cast<std::uint32_t>(page_size);
    return slot(i, token - i * static_cast<std::uint32_t>(page_size));
  }
  /// First byte of slot s of page i.
  constexpr std::byte* slot(std::int64_t i, std::int64_t s) const {
    if constexpr (page_table<Entry>::holds_pointers)
      return entries[i] + (start + s * slot_stride);
    else {
      std::int64_t const id = entries == nullptr ? 0 : static_cast<std::int64_t>(masked(entries[i], index_mask));
      return base + (start + id * page_stride + s * slot_stride);
    }
  }
};

/// f(token, count, address) for stretches of tokens of [first, last) that lie in one page: theirs are the rows at
/// address + i·slot_stride, i < count. The page is looked up once a stretch; where pages lie is not foreseen by
/// machines, so that a later one is fetched meanwhile.
template <class Entry, class F>
constexpr void each_run(token_rows<Entry> const& rows, std::int64_t first, std::int64_t last, F&& f) {
  std::int64_t const size = rows.page_size;
  constexpr std::int64_t ahead = 4;  // pages
  std::int64_t page = first / size, slot = first - page * size;
  for (std::int64_t t = first; t < last; ++page, slot = 0) {
    if (t + ahead * size < last) __builtin_prefetch(rows.slot(page + ahead, 0));
    std::int64_t const left = last - t, room = size - slot, count = left < room ? left : room;
    f(t, count, rows.slot(page, slot));
    t += count;
  }
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
