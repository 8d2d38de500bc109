// SPDX-License-Identifier: Apache-2.0
// Which pages threads of a device have come by: a set in scratch.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/validate.hpp>
#include <kvevict/cuda/context/device.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The pages that rows write, each once: a bit per id of the pool, or a hash set of addresses.
template <class Entry> struct written_pages {
  std::uint32_t* words;
  std::int64_t apart = 0;          // ids: from the bits of a part of all pages to the next
  validation::page_parts parts{};  // layers and heads, where they are apart
  // addresses: a power of two, at least twice the table's pages; a word is 1 + the page's place in the table, or 0
  std::uint32_t slots = 0;

  /// Notes page (b, h, i), or (`Look`) only looks; whether it was there. `at` is its place in a table with rows of
  /// `columns` pages.
  template <bool Look>
  KVEVICT_DEVICE bool has(thread& t, layer_view<Entry> const& v, std::int64_t at, std::int64_t columns) const {
    Entry const page = entry(v, at, columns);
    std::int64_t const part = part_of(v, at, columns);
    if constexpr (page_table<Entry>::holds_pointers) {
      std::uint64_t const mixed =
          (reinterpret_cast<std::uintptr_t>(page) / 16 + static_cast<std::uint64_t>(part)) * 0x9e3779b97f4a7c15u;
      for (auto slot = static_cast<std::uint32_t>(mixed >> 32);; ++slot) {
        std::uint32_t* const word = words + (slot & (slots - 1));
        std::uint32_t const before =
            Look ? *word : atomic_compare_exchange(t, word, 0u, static_cast<std::uint32_t>(at) + 1);
        if (before == 0) return false;
        if (same(v, at, std::int64_t{before} - 1, columns)) return true;
      }
    } else {
      std::int64_t const place = part * apart + static_cast<std::int64_t>(page);
      std::uint32_t const bit = 1u << (place % 32);
      return ((Look ? words[place / 32] : atomic_or(t, &words[place / 32], bit)) & bit) != 0;
    }
  }

  /// Both name the same page.
  KVEVICT_DEVICE bool same(layer_view<Entry> const& v, std::int64_t at, std::int64_t other,
                           std::int64_t columns) const {
    return entry(v, at, columns) == entry(v, other, columns) && part_of(v, at, columns) == part_of(v, other, columns);
  }

 private:
  KVEVICT_DEVICE static std::int32_t heads(layer_view<Entry> const& v) { return v.pages.per_head() ? v.heads() : 1; }
  KVEVICT_DEVICE static Entry entry(layer_view<Entry> const& v, std::int64_t at, std::int64_t columns) {
    std::int64_t const r = at / columns;
    return v.pages.entry(static_cast<std::int32_t>(r / heads(v)), static_cast<std::int32_t>(r % heads(v)),
                         at % columns);
  }
  KVEVICT_DEVICE std::int64_t part_of(layer_view<Entry> const& v, std::int64_t at, std::int64_t columns) const {
    std::int64_t const r = at / columns;
    return parts(v.pages, static_cast<std::int32_t>(r / heads(v)), static_cast<std::int32_t>(r % heads(v)));
  }
};

/// Tokens that a row of the table has pages for.
template <class Entry> KVEVICT_DEVICE std::int64_t room_of(layer_view<Entry> const& v, std::int32_t b, std::int32_t h) {
  if (v.pages.row_begin != nullptr && v.pages.row_begin[v.pages.row_of(b, h)] < 0) return 0;
  return std::min(v.pages.capacity(b, h), v.pages.most_tokens());
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
