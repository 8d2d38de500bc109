// SPDX-License-Identifier: Apache-2.0
// Evicts where pages are shared or published: those are never written, what would change in them goes into fresh pages.
#pragma once

#include <cstdint>
#include <vector>

#include <kvevict/apply/new_table.hpp>
#include <kvevict/apply/relocation_checks.hpp>
#include <kvevict/cache/move_plan.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

template <class Entry> class relocated;
namespace moves {
template <class Context, class Entry, class Ledger, class Move>
void relocate_by(Context&, layer_view<Entry> const&, keep_set const&, Ledger&, relocated<Entry>&, Move);
}

/// The table afterwards, with what was taken from the ledger and given back to it.
template <class Entry> class relocated : public new_table<Entry> {
 public:
  /// Pages that the ledger lacked, in a call that has therefore changed nothing; then ok() is false.
  std::int64_t missing_pages() const { return missing_; }
  /// Pages that rows name now and have not named before.
  slice<Entry const> acquired() const { return this->expect_ready(), this->of(acquired_); }
  std::int64_t bytes_moved() const { return this->expect_ready(), bytes_moved_; }

 private:
  template <class Context, class E, class Ledger, class Move>
  friend void moves::relocate_by(Context&, layer_view<E> const&, keep_set const&, Ledger&, relocated<E>&, Move);

  void write_moves(moves::relocation<Entry> const& plan, keep_set const& keep);
  void write_table(moves::relocation<Entry> const& plan, layer_view<Entry> const& both);

  move_plan plan_;  // slots of the table with all pages
  std::vector<Entry> acquired_;
  std::int64_t missing_ = 0, bytes_moved_ = 0;
};

/// Ascending, and no destination before its source in the same pages: a forward copy loses nothing.
template <class Entry> void relocated<Entry>::write_moves(moves::relocation<Entry> const& plan, keep_set const& keep) {
  layer_view<Entry> const& v = plan.v;
  plan_.sequences = keep.sequences, plan_.heads = keep.heads, plan_.lengths_before = keep.lengths;
  plan_.sources.clear(), plan_.destinations.clear(), plan_.row_begin.assign(1, 0);
  plan_.lengths.clear(), plan_.order = v.order;
  for (std::int64_t r = 0; r < v.rows(); ++r) {
    slice<std::int32_t const> const kept = keep.row(r);
    moves::relocated_row const& t = plan.row[plan.rows.row(v.pages, r)];
    for (std::int64_t i = std::int64_t{t.changed} * v.pages.page_size; i < kept.size; ++i) {
      std::int64_t const to = plan.destination(t, i);
      if (to == kept[i]) continue;
      plan_.sources.push_back(kept[i]), plan_.destinations.push_back(static_cast<std::int32_t>(to));
    }
    plan_.row_begin.push_back(plan_.moves());
    plan_.lengths.push_back(static_cast<std::int32_t>(kept.size));
  }
}

template <class Entry>
void relocated<Entry>::write_table(moves::relocation<Entry> const& plan, layer_view<Entry> const& both) {
  this->begin_rows();
  acquired_.clear();
  this->next_lengths_.assign(plan_.lengths.begin(), plan_.lengths.end());
  for (std::int64_t k = 0; k < plan.rows.count(); ++k) {
    moves::relocated_row const& t = plan.row[k];
    Entry const* const fresh = both.pages.entries + both.pages.row_begin[k] + t.before;
    for (std::int32_t i = 0; i < t.before; ++i) {
      std::int32_t const n = plan.replaced[t.first_page + i];
      if (i < t.after) this->next_entries_.push_back(n == moves::writable ? plan.entries(t)[i] : fresh[n]);
      if (i >= t.after || n != moves::writable) this->released_.push_back(plan.page(t, i));
    }
    acquired_.insert(acquired_.end(), fresh, fresh + t.fresh);
    this->end_row(t.kept, plan.v.pages.page_size);
  }
}

namespace moves {

/// relocate() with `move(view with the table of all pages, moves)`, which moves the rows.
template <class Context, class Entry, class Ledger, class Move>
void relocate_by(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, Ledger& ledger,
                 relocated<Entry>& out, Move move) {
  static_assert(page_ledger<Ledger, Entry>,
                "relocate: a ledger has references(page), published(page), acquire(), which gives a page or nothing as "
                "std::optional does, and release(page) noexcept");
  out.ready_ = false, out.missing_ = 0;
  expect_rows_move("relocate", view);
  validate(view, ctx.scratch(), page_use::read);
  expect_table("relocate", view);
  expect_keep("relocate", ctx, view, fingerprint_of(view), keep);

  frame scratch(ctx.scratch());
  relocation<Entry> plan(view, keep, scratch);
  slice<Entry const> const sorted = sorted_pages(plan, scratch);
  expect_counted(ledger, sorted);
  plan.replace_pages([&](relocated_row const& t, std::int32_t j) {
    Entry const page = plan.page(t, j);
    return std::int64_t{j} * view.pages.page_size >= t.read_only && ledger.references(page) == 1 &&
           !ledger.published(page);
  });
  taken_pages<Entry, Ledger> taken(ledger, scratch.allocate<Entry>(plan.fresh));
  for (std::int64_t i = 0; i < plan.fresh; ++i)
    if (!taken.take()) {
      out.missing_ = plan.fresh - i;
      return;
    }
  expect_fresh(view, sorted, taken.pages(), scratch);
  layer_view<Entry> const both = extended(plan, taken.pages(), scratch);
  expect_apart(plan, both, ctx.scratch());
  out.write_moves(plan, keep);
  expect_movable("relocate", view, out.plan_);
  out.write_table(plan, both);
  out.bytes_moved_ = bytes_of(view, out.plan_);
  move(both, out.plan_);
  taken.keep();
  for (Entry const page : out.released_) ledger.release(page);
  out.finish(view.heads(), view.order);
}

}  // namespace moves

/// compact() for a cache whose pages are counted (page_ledger.hpp): forks, common prefixes, pages in a prefix hash. A
/// page stays, whatever its state, while it is full and its content unchanged. Of the others that hold kept tokens one
/// that is the row's own is filled in place; one that is shared, published or read-only is replaced by a fresh page, so
/// that the next token finds a page which it may be written to. Rows stay in order, positions with them.
///
///   relocate(ctx, view, keep, ledger, done);
///   if (!done.ok()) …;                                   // done.missing_pages() were lacking: nothing has changed
///   done.write_dense(e.table, e.table_memory);           // the ledger knows of acquired and released pages
///
/// Pages that are given up are released when all rows have moved. Publish none that an eviction has written: its tokens
/// are no prefix any more. A view may hold several forks, for `plan` as for this verb.
///
/// Shapes   keep set of this view (B·H rows) → entries a row of the table, lengths (B·H).
/// Cost     O(pages · log pages) checks, O(kept) planning, 2 · moved bytes; no allocation after the first calls of a
///          size.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; unequal counts in rows of one table; rows common to all heads or layers but different sets;
///          page-wise quantisation where tokens would move; components with pages of their own; tokens in a contiguous
///          cache; a ledger that counts fewer references than the view has, or gives pages that are in use. Then, as
///          when memory runs out or the ledger throws, nothing has changed and what was taken is given back; after a
///          move_interrupted that is so of the ledger.
template <class Context, class Entry, class Ledger>
void relocate(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, Ledger& ledger,
              relocated<Entry>& out) {
  moves::relocate_by(ctx, view, keep, ledger, out,
                     [&](layer_view<Entry> const& both, move_plan& plan) { moves::execute(ctx, both, plan); });
}

template <class Context, class Entry, class Ledger>
relocated<Entry> relocate(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, Ledger& ledger) {
  relocated<Entry> out;
  relocate(ctx, view, keep, ledger, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
