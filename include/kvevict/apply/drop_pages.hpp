// SPDX-License-Identifier: Apache-2.0
// Evicts whole pages: the table names those that stay, the others are free, and no byte of the cache is touched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/apply/new_table.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

template <class Entry> class dropped : public new_table<Entry> {
  template <class Context, class E>
  friend void drop_pages(Context&, layer_view<E> const&, keep_set const&, dropped<E>&);
};

namespace moves {

/// f(page) for every page of row r that stays, in order; each has all its tokens.
template <class Entry, class F>
void each_whole_page(layer_view<Entry> const& v, keep_set const& keep, std::int64_t r, F f) {
  slice<std::int32_t const> const kept = keep.row(r);
  std::int64_t const P = v.pages.page_size, N = keep.lengths[static_cast<std::size_t>(r)];
  for (std::int64_t i = 0; i < kept.size;) {
    std::int64_t const page = kept[i] / P, first = page * P, count = std::min(P, N - first), last = i + count - 1;
    if (kept[i] != first || last >= kept.size || kept[last] != first + count - 1) {
      auto const end = std::lower_bound(kept.begin() + i, kept.end(), first + count);
      contract::violate("drop_pages: ", messages::row(r / v.heads(), r % v.heads()), " keeps ",
                        end - (kept.begin() + i), " of the ", count, " tokens of page ", page,
                        "; a page stays or goes as a whole, plan with .with(select::pages{}), or compact a cache whose "
                        "rows move");
    }
    f(page);
    i = last + 1;
  }
}

}  // namespace moves

/// The table that names the pages which stay, in their order, the new lengths, and the pages that went (released()).
/// For caches whose rows do not move (scales that cover a page, OpenVINO's default) and engines that free pages and no
/// less; select::pages makes such keep sets. Positions are untouched, and pages may be shared by sequences, for none is
/// written. The engine's own table is written by done.write_dense(…) or done.write_csr(…). A device's keep set is read
/// first (keep.read(ctx)), and the table is one in the host's memory.
///
///   kept = P·(full pages that stay) + (N mod P, where the part-filled last page does)
///
/// Shapes   keep set of this view (B·H rows) → pages of each row of the table, lengths (B·H).
/// Cost     O(pages) checks, O(kept); no allocation after the first two calls of a size.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; a part of a page; different pages or lengths in heads or layers that go by one table;
///          components with pages of their own; tokens in a contiguous cache. `out` has no result then.
template <class Context, class Entry>
void drop_pages(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, dropped<Entry>& out) {
  out.ready_ = false;
  validate(view, ctx.scratch(), page_use::read);
  moves::expect_table("drop_pages", view);
  moves::expect_kept_rows("drop_pages", ctx, view, fingerprint_of(view), keep);
  moves::expect_one_set("drop_pages", view, keep);
  KVEVICT_EXPECTS(keep.kept() / view.pages.page_size + keep.rows() <= std::numeric_limits<std::int32_t>::max(),
                  "drop_pages: ", keep.kept(), " tokens in pages of ", view.pages.page_size,
                  "; rows of a table begin below 2^31, give fewer sequences at once");
  moves::table_rows const rows(view.pages);
  std::int64_t const P = view.pages.page_size;
  out.begin_rows();
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    auto const kept = static_cast<std::int32_t>(keep.row(r).size);
    out.next_lengths_.push_back(kept);
    if (rows.first(view.pages, r) != r) continue;
    auto const b = static_cast<std::int32_t>(r / view.heads()), h = static_cast<std::int32_t>(r % view.heads());
    std::int64_t next = 0;  // pages before it are dealt with
    auto const release_to = [&](std::int64_t page) {
      for (; next < page; ++next) out.released_.push_back(view.pages.entry(b, h, next));
    };
    moves::each_whole_page(view, keep, r, [&](std::int64_t page) {
      release_to(page);
      out.next_entries_.push_back(view.pages.entries_of(b, h)[next++]);
    });
    release_to((keep.lengths[static_cast<std::size_t>(r)] + P - 1) / P);
    out.end_row(kept, static_cast<std::int32_t>(P));
  }
  out.finish(view.heads(), view.order);
}

template <class Context, class Entry>
dropped<Entry> drop_pages(Context& ctx, layer_view<Entry> const& view, keep_set const& keep) {
  dropped<Entry> out;
  drop_pages(ctx, view, keep, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
