// SPDX-License-Identifier: Apache-2.0
// Checks of a table of page addresses: aligned, and no page on another one that is written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/tables.hpp>
#include <kvevict/cache/validate_ids.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

template <class Entry>
void check_address(layer_view<Entry> const& v, std::uintptr_t address, std::int64_t extent, std::int32_t b,
                   std::int32_t h, std::int32_t i) {
  if (address == 0) messages::page_null(i, b, h);
  KVEVICT_EXPECTS(address <= static_cast<std::uintptr_t>(std::numeric_limits<std::int64_t>::max() - extent),
                  "validate: page ", i, " of sequence ", b, ", head ", h,
                  " ends beyond the addresses of 63 bits; correct the table, or the strides");
  for (component const& c : v)
    if ((address + static_cast<std::uintptr_t>(c.rows.offset)) % static_cast<std::uintptr_t>(c.alignment()) != 0)
      messages::page_unaligned(i, b, h, name_of(c.what));
  if (address % static_cast<std::uintptr_t>(v.pages.alignment) != 0)
    messages::page_alignment(i, b, h, v.pages.alignment);
}

/// Bytes from a page's address to the end of what it holds, in all layers.
template <class Entry> std::int64_t page_extent(layer_view<Entry> const& v) {
  std::int64_t bytes = 0;
  for (component const& c : v) bytes = std::max(bytes, footprint_of(v, c).start + footprint_of(v, c).span());
  return bytes;
}

/// The usual table, whose pages lie apart as wholes or are the same: else `unknown`. Two rows that write a page of the
/// same address, or one row that has it twice, are a violation; or `common`, where all are only read.
template <class Entry> doubles find_same_pages(layer_view<Entry> const& v, arena& memory, page_use use) {
  frame scratch(memory);
  auto* const all = scratch.allocate<page_place>(count_pages(v));
  std::int64_t n = 0;
  std::int64_t const extent = page_extent(v);
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    std::int64_t const fixed = read_only_pages(v, b, h), pages = pages_in_use(v, b, h);
    for (std::int32_t i = 0; i < pages; ++i) {
      auto const address = reinterpret_cast<std::uintptr_t>(v.pages.entry(b, h, i));
      check_address(v, address, extent, b, h, i);
      all[n++] = {static_cast<std::int64_t>(address), b * v.heads() + h, i < fixed ? ~i : i};
    }
  });
  page_parts const parts = page_parts::of(v);
  auto const part = [&](page_place const& p) {
    return parts.count() == 1 ? 0 : parts(v.pages, p.row / v.heads(), p.row % v.heads());
  };
  std::sort(all, all + n, [&](page_place const& x, page_place const& y) {
    if (x.at != y.at) return x.at < y.at;
    return part(x) != part(y) ? part(x) < part(y) : x.row < y.row;
  });
  bool apart = true, common = false;
  for (std::int64_t i = 1; i < n; ++i) {
    page_place const &x = all[i - 1], &y = all[i];
    if (x.at != y.at)
      apart = apart && y.at - x.at >= extent;
    else if (part(x) != part(y) || (x.row != y.row && x.read_only() && y.read_only()))
      continue;
    else if (use == page_use::read)
      common = true, expect_fork(v, y.row / v.heads(), y.row % v.heads(), y.index());
    else if (parts.mixed)
      apart = false;
    else
      violate_double(v, y.row / v.heads(), y.row % v.heads(), y.index());
  }
  return common ? doubles::common : apart ? doubles::none : doubles::unknown;
}

template <class Entry> void check_addresses(layer_view<Entry> const& v, arena& memory, page_use use) {
  doubles const found = find_same_pages(v, memory, use);
  if (found == doubles::common) {
    frame scratch(memory);
    return check_addresses(only_read(v, scratch), memory, page_use::written);
  }
  if (found == doubles::unknown || find_doubtful(v).c != nullptr) check_places(v, memory);
}

/// Tables one by one; then, where components of two lie in one pool, the pages of the one against those of the other.
template <class Entry> void check_pages(layer_view<Entry> const& v, arena& memory, page_use use) {
  each_table(v, [&](layer_view<Entry> const& part) {
    if constexpr (page_table<Entry>::holds_pointers)
      check_addresses(part, memory, use);
    else
      check_ids(part, memory, use);
  });
  if (!have_common_pool(v)) return;
  frame scratch(memory);
  check_places(use == page_use::read ? only_read(v, scratch) : v, memory, false);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
