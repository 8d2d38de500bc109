// SPDX-License-Identifier: Apache-2.0
// Evicts by the table alone: with pages of one token, whoever is kept is named, and nothing moves.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/apply/new_table.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

template <class Entry> class rewritten : public new_table<Entry> {
  template <class Context, class E>
  friend void rewrite_table(Context&, layer_view<E> const&, keep_set const&, rewritten<E>&);
};

/// The table that names the kept tokens of every row in their order, the new lengths, and the entries that went. Token
/// pools (SGLang) and caches of cells (llama.cpp) are evicted so; tokens may be shared by sequences, for no page is
/// written. The engine's own table is written by done.write_dense(…) or done.write_csr(…).
///
/// Shapes   keep set of this view (B·H rows) → entries (kept) a row of the table, lengths (B·H).
/// Cost     O(pages) checks, O(N) a row; no allocation after the first call of a size.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; pages of several tokens, or none (contiguous caches); different tokens or lengths in rows of
///          one table; components with pages of their own. `out` has no result then.
template <class Context, class Entry>
void rewrite_table(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, rewritten<Entry>& out) {
  out.ready_ = false;
  validate(view, ctx.scratch(), page_use::read);
  moves::expect_table("rewrite_table", view);
  KVEVICT_EXPECTS(view.pages.page_size == 1, "rewrite_table: the table names pages of ", view.pages.page_size,
                  " tokens; compact the cache, or drop_pages where whole pages are kept");
  moves::expect_kept_rows("rewrite_table", ctx, view, fingerprint_of(view), keep);
  moves::expect_one_set("rewrite_table", view, keep);
  KVEVICT_EXPECTS(keep.kept() <= std::numeric_limits<std::int32_t>::max(), "rewrite_table: ", keep.kept(),
                  " entries; rows of a table begin below 2^31, give fewer sequences at once");
  moves::table_rows const rows(view.pages);
  out.begin_rows();
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    slice<std::int32_t const> const kept = keep.row(r);
    out.next_lengths_.push_back(static_cast<std::int32_t>(kept.size));
    if (rows.first(view.pages, r) != r) continue;
    auto const b = static_cast<std::int32_t>(r / view.heads()), h = static_cast<std::int32_t>(r % view.heads());
    std::int64_t i = 0;
    for (std::int32_t t = 0, n = keep.lengths[static_cast<std::size_t>(r)]; t < n; ++t)
      if (i < kept.size && kept[i] == t)
        out.next_entries_.push_back(view.pages.entries_of(b, h)[t]), ++i;
      else
        out.released_.push_back(view.pages.entry(b, h, t));
    out.end_row(static_cast<std::int32_t>(kept.size), 1);
  }
  out.finish(view.heads(), view.order);
}

template <class Context, class Entry>
rewritten<Entry> rewrite_table(Context& ctx, layer_view<Entry> const& view, keep_set const& keep) {
  rewritten<Entry> out;
  rewrite_table(ctx, view, keep, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
