// SPDX-License-Identifier: Apache-2.0
// Which pages a relocation writes, which it takes, and the table of both in which its moves are slots.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/apply/page_ledger.hpp>
#include <kvevict/apply/reading.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace moves {

/// A row of the table during a relocation. Its page j afterwards is its own page j where that stays or is written in
/// place; from `from` on a page that may not be written is replaced by the next fresh one.
struct relocated_row {
  std::int32_t view_row = -1;          // the first of the view's rows that go by it
  std::int32_t before = 0, after = 0;  // pages
  std::int32_t kept = 0;               // tokens
  std::int32_t changed = 0;            // its first page of which the content or the end changes; `after` where none
  std::int32_t fresh = 0;              // pages to take
  std::int32_t read_only = 0;          // tokens at its front
  std::int64_t first_page = 0, first_fresh = 0;  // in the arrays of all rows
};

inline constexpr std::int32_t writable = -1;  // in place: a page's number among the fresh ones, or this

/// All rows of a view; memory of a frame.
template <class Entry> struct relocation {
  layer_view<Entry> const& v;
  table_rows rows;
  relocated_row* row;
  std::int64_t pages = 0, fresh = 0;
  std::int32_t* replaced = nullptr;  // (pages) of page j < after: its number among the row's fresh pages, or `writable`

  relocation(layer_view<Entry> const& view, keep_set const& keep, frame& scratch)
      : v(view), rows(view.pages), row(scratch.allocate<relocated_row>(rows.count())) {
    fill_n(row, rows.count(), relocated_row{});
    for (std::int64_t r = 0; r < v.rows(); ++r) add(keep, r);
    for (std::int64_t t = 0; t < rows.count(); ++t) row[t].first_page = pages, pages += row[t].before;
    replaced = scratch.allocate<std::int32_t>(pages);
    fill_n(replaced, pages, writable);
  }

  Entry page(relocated_row const& t, std::int64_t i) const {
    return v.pages.entry(t.view_row / v.heads(), t.view_row % v.heads(), i);
  }
  Entry const* entries(relocated_row const& t) const {
    return v.pages.entries_of(t.view_row / v.heads(), t.view_row % v.heads());
  }
  /// Slot of the row's extended table, in which fresh pages follow its own, that kept token i comes to.
  std::int64_t destination(relocated_row const& t, std::int64_t i) const {
    std::int64_t const P = v.pages.page_size, j = i / P;
    std::int32_t const n = replaced[t.first_page + j];
    return n == writable ? i : (t.before + n) * P + i % P;
  }

  /// Pages may be written by what `may_write(row, page)` says.
  template <class MayWrite> void replace_pages(MayWrite&& may_write) {
    for (std::int64_t k = 0; k < rows.count(); ++k) {
      relocated_row& t = row[k];
      t.first_fresh = fresh;
      for (std::int32_t j = t.changed; j < t.after; ++j)
        if (!may_write(t, j)) replaced[t.first_page + j] = t.fresh++;
      fresh += t.fresh;
      KVEVICT_EXPECTS(
          (std::int64_t{t.before} + t.fresh) * v.pages.page_size <= std::numeric_limits<std::int32_t>::max(),
          "relocate: a row of ", t.before, " pages and ", t.fresh, " fresh ones has more than 2^31 slots; compact it");
    }
  }

 private:
  /// What of a row of the table changes is what changes for any head and layer that goes by it.
  void add(keep_set const& keep, std::int64_t r) {
    relocated_row& t = row[rows.row(v.pages, r)];
    slice<std::int32_t const> const kept = keep.row(r);
    std::int32_t const P = v.pages.page_size, n = keep.lengths[static_cast<std::size_t>(r)];
    auto const count = static_cast<std::int32_t>(kept.size);
    std::int64_t const first = rows.first(v.pages, r);
    if (first == r) {
      t.view_row = static_cast<std::int32_t>(r), t.kept = count;
      t.before = (n + P - 1) / P, t.after = t.changed = (count + P - 1) / P;
    }
    KVEVICT_EXPECTS(count == t.kept && keep.lengths[static_cast<std::size_t>(first)] == n,
                    "relocate: ", messages::row(r / v.heads(), r % v.heads()), " keeps ", count, " of ", n,
                    " tokens and ", contract::text_of(messages::row(first / v.heads(), first % v.heads())), " ", t.kept,
                    " by one page table; use a policy with equal counts, or give each its own table");
    t.read_only = std::max(t.read_only, v.read_only_tokens(static_cast<std::int32_t>(r / v.heads())));
    // a page that is cut stays only where the next token may be written behind the cut
    if (count != n) t.changed = std::min(t.changed, static_cast<std::int32_t>(unmoved(kept, compaction::stable) / P));
  }
};

/// The view's table with every row's fresh pages behind its own; memory of a frame.
template <class Entry>
layer_view<Entry> extended(relocation<Entry> const& plan, slice<Entry const> fresh, frame& scratch) {
  auto* const begin = scratch.allocate<std::int32_t>(plan.rows.count() + 1);
  auto* const entries = scratch.allocate<Entry>(plan.pages + fresh.size);
  std::int32_t n = 0, columns = 0;
  KVEVICT_EXPECTS(plan.pages + fresh.size <= std::numeric_limits<std::int32_t>::max(), "relocate: ", plan.pages,
                  " pages in use; rows of a table begin below 2^31, give fewer sequences at once");
  for (std::int64_t k = 0; k < plan.rows.count(); ++k) {
    relocated_row const& t = plan.row[k];
    begin[k] = n;
    for (std::int32_t i = 0; i < t.before; ++i) entries[n++] = plan.entries(t)[i];
    for (std::int32_t i = 0; i < t.fresh; ++i) entries[n++] = fresh[t.first_fresh + i];
    columns = std::max(columns, n - begin[k]);
  }
  begin[plan.rows.count()] = n;
  layer_view<Entry> out = plan.v;
  out.pages.entries = entries, out.pages.row_begin = begin, out.pages.columns = columns;
  out.pages.seq_stride = 0, out.pages.head_stride = plan.rows.per_head ? 1 : 0;
  out.pages.layer_stride = plan.rows.layers == 1 ? 0 : plan.rows.of_layer;
  return out;
}

}  // namespace moves
}  // namespace KVEVICT_ABI
}  // namespace kvevict
