// SPDX-License-Identifier: Apache-2.0
// Checks of a table of page addresses: aligned, and no page on another one that is written.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/validate_pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// One page of a table of addresses.
struct page_address {
  std::uintptr_t address;
  std::int32_t row, page;  // page < 0: ~index of a read-only one

  std::int32_t index() const { return page < 0 ? ~page : page; }
  bool written_with(page_address const& y) const { return row == y.row || page >= 0 || y.page >= 0; }
};

template <class Entry>
void check_address(layer_view<Entry> const& v, std::uintptr_t address, std::int32_t b, std::int32_t h, std::int32_t i) {
  KVEVICT_EXPECTS(address != 0, "validate: page ", i, " of sequence ", b, ", head ", h,
                  " is null; every page in use needs an address");
  for (component const& c : v)
    KVEVICT_EXPECTS(
        (address + static_cast<std::uintptr_t>(c.rows.offset)) % static_cast<std::uintptr_t>(size_of(c.type)) == 0,
        "validate: page ", i, " of sequence ", b, ", head ", h, " is not aligned to the elements of component ",
        name_of(c.what), "; correct the address or the offset");
}

/// Bytes from a page's address to the end of what it holds, in all layers.
template <class Entry> std::uintptr_t page_extent(layer_view<Entry> const& v) {
  std::int64_t bytes = 0;
  for (component const& c : v) bytes = std::max(bytes, footprint_of(v, c).start + footprint_of(v, c).span());
  return static_cast<std::uintptr_t>(bytes);
}

/// Page y begins within the extent of page x: their rows may still interleave, as those of heads do.
template <class Entry> void expect_apart(layer_view<Entry> const& v, page_address const& x, page_address const& y) {
  auto const apart = static_cast<std::int64_t>(y.address - x.address);
  for (component const& c : v)
    for (component const& d : v) {
      footprint behind = footprint_of(v, d);
      behind.start += apart;
      KVEVICT_EXPECTS(c.alias_of != -1 || d.alias_of != -1 || !overlap(footprint_of(v, c), behind), "validate: page ",
                      y.index(), " of sequence ", y.row / v.heads(), ", head ", y.row % v.heads(), " begins ", apart,
                      " bytes into page ", x.index(), " of sequence ", x.row / v.heads(), ", head ", x.row % v.heads(),
                      " and overlaps it; correct the table");
    }
}

template <class Entry> void check_addresses(layer_view<Entry> const& v, arena& memory) {
  std::int64_t total = 0, n = 0;
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) { total += pages_in_use(v, b, h); });
  frame scratch(memory);
  auto* const all = scratch.allocate<page_address>(total);
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    std::int64_t const fixed = read_only_pages(v, b, h), pages = pages_in_use(v, b, h);
    for (std::int32_t i = 0; i < pages; ++i) {
      auto const address = reinterpret_cast<std::uintptr_t>(v.pages.entry(b, h, i));
      check_address(v, address, b, h, i);
      all[n++] = {address, b * v.heads() + h, i < fixed ? ~i : i};
    }
  });
  auto const layer = [&](page_address const& p) { return layers_apart(v) ? v.pages.layer_of(p.row / v.heads()) : 0; };
  std::sort(all, all + n, [](page_address const& x, page_address const& y) {
    return x.address != y.address ? x.address < y.address : x.row < y.row;
  });
  std::uintptr_t const extent = page_extent(v);
  for (std::int64_t i = 1; i < n; ++i) {
    page_address const &x = all[i - 1], &y = all[i];
    if (!x.written_with(y)) continue;
    if (x.address != y.address && y.address - x.address < extent) expect_apart(v, x, y);
    if (x.address == y.address && layer(x) == layer(y))
      violate_double(v, y.row / v.heads(), y.row % v.heads(), y.index());
  }
}

template <class Entry> void check_pages(layer_view<Entry> const& v, arena& scratch) {
  if constexpr (page_table<Entry>::holds_pointers)
    check_addresses(v, scratch);
  else
    check_ids(v, scratch);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
