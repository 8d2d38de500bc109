// SPDX-License-Identifier: Apache-2.0
// The pages of a table on a device: in range, and none that two rows write.
#pragma once

#include <array>

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
        std::int64_t const other = std::int64_t{before} - 1;
        if (entry(v, other, columns) == page && part_of(v, other, columns) == part) return true;
      }
    } else {
      std::int64_t const place = part * apart + static_cast<std::int64_t>(page);
      std::uint32_t const bit = 1u << (place % 32);
      return ((Look ? words[place / 32] : atomic_or(t, &words[place / 32], bit)) & bit) != 0;
    }
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

/// Pages in range and aligned, and none that two rows or one row twice would write. One thread per page of a table's
/// row.
///
/// Shapes   a page table (table rows, pages), words of zeros → words.
template <class Entry> struct check_pages_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> v;
  std::array<validation::id_rule, layer_view<Entry>::max_components> rules;
  written_pages<Entry> written;
  std::int64_t pages;  // most of a row
  bool prefixes;       // the second pass: is a page of a read-only prefix written by a row, or twice in its own?

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.linear_index(), r = at / pages,
                       i = at % pages;
    if (r >= v.pages.rows() || watch.stopped(t)) return;
    std::int64_t const heads = v.pages.per_head() ? v.heads() : 1;
    auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
    if (i >= validation::pages_in_use(v, b, h)) return;
    Entry const page = v.pages.entry(b, h, i);
    std::int64_t name;
    if constexpr (page_table<Entry>::holds_pointers)
      name = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(page));
    else
      name = static_cast<std::int64_t>(page);
    if (!sound(name)) return watch.refuse(t, fault::page, b, h, name, i, i);
    if (v.pages.is_identity() || prefixes != (i < validation::read_only_pages(v, b, h))) return;
    bool twice = prefixes ? written.template has<true>(t, v, at, pages) : written.template has<false>(t, v, at, pages);
    for (std::int64_t j = 0; prefixes && j < i; ++j) twice = twice || v.pages.entry(b, h, j) == page;
    if (twice) watch.refuse(t, fault::page_twice, b, h, name, i, i);
  }

 private:
  KVEVICT_DEVICE bool sound(std::int64_t name) const {
    bool all = true;
    if constexpr (page_table<Entry>::holds_pointers) {
      auto const address = static_cast<std::uintptr_t>(name);
      all = address != 0 && address % static_cast<std::uintptr_t>(v.pages.alignment) == 0;
      for (component const& c : v)
        all =
            all &&
            (address + static_cast<std::uintptr_t>(c.rows.offset)) % static_cast<std::uintptr_t>(size_of(c.type)) == 0;
    } else {
      for (std::int32_t c = 0; c < v.component_count; ++c) all = all && rules[static_cast<std::size_t>(c)].allows(name);
    }
    return all;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
