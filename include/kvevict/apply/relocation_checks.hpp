// SPDX-License-Identifier: Apache-2.0
// What a ledger says, against the view; and that no byte which a relocation writes belongs to anybody else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <kvevict/apply/relocation.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace moves {

template <class Entry> std::uint64_t number_of(Entry page) {
  if constexpr (std::is_pointer_v<Entry>)
    return reinterpret_cast<std::uintptr_t>(page);
  else
    return static_cast<std::uint64_t>(page);
}

template <class Entry> bool before(Entry x, Entry y) { return number_of(x) < number_of(y); }

/// All pages in use, in order; memory of a frame.
template <class Entry> slice<Entry const> sorted_pages(relocation<Entry> const& plan, frame& scratch) {
  auto* const all = scratch.allocate<Entry>(plan.pages);
  for (std::int64_t k = 0; k < plan.rows.count(); ++k)
    for (std::int32_t i = 0; i < plan.row[k].before; ++i) all[plan.row[k].first_page + i] = plan.page(plan.row[k], i);
  std::sort(all, all + plan.pages, before<Entry>);
  return {all, plan.pages};
}

/// The ledger counts all references that the view shows: else a page that two rows name might pass as one's own.
template <class Ledger, class Entry> void expect_counted(Ledger& ledger, slice<Entry const> sorted) {
  for (Entry const* first = sorted.begin(); first != sorted.end();) {
    Entry const* const last = std::upper_bound(first, sorted.end(), *first, before<Entry>);
    auto const counted = static_cast<std::int64_t>(ledger.references(*first));
    KVEVICT_EXPECTS(counted >= last - first, "relocate: ", last - first, " rows of the table name page ",
                    number_of(*first), ", but the ledger counts ", counted,
                    " references to it; count one for every row, and drop it when the row is gone");
    first = last;
  }
}

/// The ledger's pages are in every pool, and neither the view's nor there twice.
template <class Entry>
void expect_fresh(layer_view<Entry> const& v, slice<Entry const> sorted, slice<Entry const> fresh, frame& scratch) {
  auto* const own = scratch.allocate<Entry>(fresh.size);
  std::copy(fresh.begin(), fresh.end(), own);
  std::sort(own, own + fresh.size, before<Entry>);
  for (std::int64_t i = 0; i < fresh.size; ++i) {
    bool known = true;
    if constexpr (!std::is_pointer_v<Entry>) {
      known = own[i] >= 0 && masked(own[i], v.pages.index_mask) == own[i];
      for (component const& c : v) known = known && static_cast<std::int64_t>(own[i]) < c.rows.page_count;
    }
    KVEVICT_EXPECTS(known, "relocate: the ledger gives page ", static_cast<std::int64_t>(number_of(own[i])),
                    ", which is not in the pool of every component; let acquire() give pages of this cache, without "
                    "tag bits");
    KVEVICT_EXPECTS(
        (i == 0 || own[i - 1] != own[i]) && !std::binary_search(sorted.begin(), sorted.end(), own[i], before<Entry>),
        "relocate: the ledger gives page ", number_of(own[i]),
        " that is in use; acquire() must give pages to which there is no reference");
  }
}

/// validate() of what is written against what is only read, as sequences of their own: first those of pages that stay
/// or go, then those of pages that are written.
template <class Entry> void expect_apart(relocation<Entry> const& plan, layer_view<Entry> const& both, arena& memory) {
  frame scratch(memory);
  auto const& v = plan.v;
  std::int64_t const H = v.heads(), S = v.sequences() / v.pages.layers, rows = plan.rows.count();
  auto* const entries = scratch.allocate<Entry>(plan.pages + plan.fresh);
  auto* const begin = scratch.allocate<std::int32_t>(2 * rows + 1);
  auto* const lengths = scratch.allocate<std::int32_t>(2 * v.rows());
  auto* const read_only = scratch.allocate<std::int32_t>(2 * v.sequences());
  std::int64_t const of_layer = plan.rows.of_layer, P = v.pages.page_size;
  std::int32_t n = 0;
  for (std::int64_t k = 0; k < 2 * rows; ++k) {  // layer, read or written, row of the layer
    bool const writes = k / of_layer % 2 != 0;
    std::int64_t const at = k / (2 * of_layer) * of_layer + k % of_layer;
    relocated_row const& t = plan.row[at];
    begin[k] = n;
    for (std::int32_t i = 0; i < t.before; ++i)
      if ((i >= t.changed && i < t.after && plan.replaced[t.first_page + i] == writable) == writes)
        entries[n++] = plan.entries(t)[i];
    for (std::int32_t i = 0; i < (writes ? t.fresh : 0); ++i)
      entries[n++] = both.pages.entries[both.pages.row_begin[at] + t.before + i];
  }
  begin[2 * rows] = n;
  layer_view<Entry> out = both;
  out.pages.entries = entries, out.pages.row_begin = begin;
  out.pages.sequences = 2 * v.sequences(), out.pages.layer_stride = both.pages.layer_stride * 2;
  for (std::int64_t b = 0; b < 2 * v.sequences(); ++b) {
    bool const writes = b / S % 2 != 0;
    read_only[b] = writes ? 0 : std::numeric_limits<std::int32_t>::max();
    for (std::int64_t h = 0; h < H; ++h) {
      std::int64_t const r = out.pages.row_of(static_cast<std::int32_t>(b), static_cast<std::int32_t>(h));
      std::int64_t const pages = begin[r + 1] - begin[r];
      lengths[b * H + h] = static_cast<std::int32_t>(pages == 0 ? 0 : (pages - 1) * P + 1);
    }
  }
  out.lengths = {lengths, H, 1};
  validate(out.with_read_only(read_only), memory);
}

}  // namespace moves
}  // namespace KVEVICT_ABI
}  // namespace kvevict
