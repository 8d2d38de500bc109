// SPDX-License-Identifier: Apache-2.0
// Evicts in place: kept tokens move to the front of their rows, the pages behind them are free.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/apply/compaction_result.hpp>
#include <kvevict/apply/moves.hpp>
#include <kvevict/cache/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a compaction did, at once.
template <class Entry> class compacted : public compaction_result<Entry> {
 public:
  move_plan const& moves() const { return this->expect_ready(), plan_; }

 private:
  template <class Context, class E>
  friend void compact(Context&, layer_view<E> const&, keep_set const&, compaction, compacted<E>&);
  template <class Context, class E> friend void apply(Context&, layer_view<E> const&, move_plan const&, compacted<E>&);

  void prepare(layer_view<Entry> const& v);
  template <class Context> void move(Context& ctx, layer_view<Entry> const& v);
  void free_pages(layer_view<Entry> const& v);

  move_plan plan_;
};

namespace moves {

/// A plan from elsewhere can be executed front to back without losing a token it keeps.
template <class Entry>
void expect_row(char const* verb, layer_view<Entry> const& v, move_plan const& p, std::int64_t row) {
  auto const r = static_cast<std::size_t>(row);
  auto const b = static_cast<std::int32_t>(row / v.heads()), h = static_cast<std::int32_t>(row % v.heads());
  std::int32_t const before = p.lengths_before[r], after = p.lengths[r],
                     fixed = std::min(before, v.read_only_tokens(b));
  KVEVICT_EXPECTS(before == v.length(b, h), verb, ": sequence ", b, ", head ", h, " has ", v.length(b, h),
                  " tokens, but the moves are for ", before, "; plan again after the cache has changed");
  KVEVICT_EXPECTS(after >= fixed && after <= before, verb, ": sequence ", b, ", head ", h, " would have ", after,
                  " tokens, outside [", fixed, ", ", before,
                  "]: its read-only prefix and its length; correct move_plan::lengths");
  KVEVICT_EXPECTS(
      v.pages.per_head() || after == p.lengths[r - static_cast<std::size_t>(h)], verb, ": heads 0 and ", h,
      " of sequence ", b,
      " would have different lengths but share a page table; use equal counts, or give every head its own table");
  std::int64_t const first = p.row_begin[r], last = p.row_begin[r + 1];
  for (std::int64_t i = first; i < last; ++i) {
    auto const k = static_cast<std::size_t>(i);
    std::int32_t const from = p.sources[k], to = p.destinations[k];
    bool const sound = from < before && to < after && to >= fixed && to < from;
    bool const ascending = i == first || (p.sources[k - 1] < from && p.destinations[k - 1] < to);
    KVEVICT_EXPECTS(sound && ascending, verb, ": move ", i - first, " of sequence ", b, ", head ", h, " is ", from,
                    " to ", to,
                    "; sources and destinations must ascend, destinations lie below their sources, behind the ", fixed,
                    " read-only tokens and below the new length ", after);
  }
  bool const in_order = first == last || p.destinations[static_cast<std::size_t>(first)] == after - (last - first);
  KVEVICT_EXPECTS(in_order || p.order == row_order::scattered, verb, ": the moves of sequence ", b, ", head ", h,
                  " fill holes, but the plan calls its rows ascending; set move_plan::order to scattered");
}

/// A source that stays below the new length is itself the destination of a later move: else its token would be there
/// twice, in place of another.
inline void expect_no_doubles(char const* verb, move_plan const& p, std::int64_t row) {
  auto const r = static_cast<std::size_t>(row);
  auto const last = static_cast<std::size_t>(p.row_begin[r + 1]);
  auto k = static_cast<std::size_t>(p.row_begin[r]);
  for (std::size_t i = k; i < last && p.sources[i] < p.lengths[r]; ++i) {
    while (k < last && p.destinations[k] < p.sources[i]) ++k;
    KVEVICT_EXPECTS(k < last && p.destinations[k] == p.sources[i], verb, ": sequence ", row / p.heads, ", head ",
                    row % p.heads, " would hold token ", p.sources[i], " twice, in slots ", p.sources[i], " and ",
                    p.destinations[i], "; every source below the new length must be the destination of a later move");
  }
}

template <class Entry> void expect_plan(char const* verb, layer_view<Entry> const& v, move_plan const& p) {
  if (p.refused) messages::move_plan_refused(verb);
  KVEVICT_EXPECTS(p.sequences == v.sequences() && p.heads == v.heads(), verb, ": the plan has ", p.sequences,
                  " sequences of ", p.heads, " heads and the cache ", v.sequences(), " of ", v.heads(),
                  "; use the view that was planned on");
  contract::expect_rows(verb, p);
  contract::expect_same(verb, "move plan", p.made_for, fingerprint_of(v));
  KVEVICT_EXPECTS(v.order == row_order::ascending || p.order == row_order::scattered, verb,
                  ": the view's rows are scattered, but the plan calls them ascending; moving does not sort, set "
                  "move_plan::order");
  for (std::int64_t r = 0; r < v.rows(); ++r) expect_row(verb, v, p, r), expect_no_doubles(verb, p, r);
}

}  // namespace moves

/// Everything that takes memory; before the first byte moves. The view may have the lengths of the result before, which
/// stay until then.
template <class Entry> void compacted<Entry>::prepare(layer_view<Entry> const& v) {
  this->lengths_host_.resize(plan_.lengths.size());
  this->heads_ = v.heads(), this->page_size_ = v.pages.page_size, this->layers_a_row_ = v.pages.layers_a_row();
  this->order_ = plan_.order;
  this->bytes_moved_ = moves::bytes_of(v, plan_);
  free_pages(v);
}

template <class Entry> template <class Context> void compacted<Entry>::move(Context& ctx, layer_view<Entry> const& v) {
  prepare(v);
  moves::execute(ctx, v, plan_);
  std::copy(plan_.lengths.begin(), plan_.lengths.end(), this->lengths_host_.begin());
  this->ready_ = true;
}

/// A row of the table keeps the pages that any layer which goes by it needs.
template <class Entry> void compacted<Entry>::free_pages(layer_view<Entry> const& v) {
  auto& freed = this->freed_;
  freed.clear();
  this->freed_begin_.assign(1, 0);
  std::int64_t const layers = v.pages.layers_a_row(), heads = std::max(v.heads(), 1), of_layer = v.rows() / layers;
  auto const pages = [&](std::vector<std::int32_t> const& lengths, std::int64_t r) {
    std::int64_t n = 0;
    for (; r < v.rows() && !v.pages.is_identity(); r += of_layer)
      n = std::max<std::int64_t>(n, lengths[static_cast<std::size_t>(r)]);
    return (n + v.pages.page_size - 1) / v.pages.page_size;
  };
  for (std::int64_t t = 0; t < v.pages.rows() / layers; ++t) {
    std::int64_t const r = v.pages.per_head() ? t : t * heads;
    auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
    for (std::int64_t i = pages(plan_.lengths, r), before = pages(plan_.lengths_before, r); i < before; ++i)
      freed.push_back(v.pages.entry(b, h, i));
    this->freed_begin_.push_back(static_cast<std::int64_t>(freed.size()));
  }
}

/// Moves the kept tokens of every row to its front, in all components of the cache; the rest is forgotten.
///
///   stable       order kept, destination ≤ source      fill_holes   the fewest moves; afterwards use
///   view.with_order(done.order())
///
/// Shapes   keep set of this view (B·H rows) → lengths (B·H), freed pages per row of the page table. What the layers of
///          a stack share is freed once, when none of them needs it. Where heads have tables of their own into pages
///          that they share, a page is named by every head that gives it up: it is free when all have.
/// Cost     O(pages) checks, O(kept) planning, 2 · moved bytes; no allocation after the first call of a size.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; unequal counts on a table that heads share; rows common to all heads or layers but
///          different sets; page-wise quantisation. The cache is untouched then, and `out` has no result; so it is when
///          memory runs out, and when the executor throws before a row has moved. After that only an executor that
///          gives up its tasks makes it fail: move_interrupted.
template <class Context, class Entry>
void compact(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, compaction mode,
             compacted<Entry>& out) {
  out.ready_ = false;
  moves::plan_checked("compact", ctx, view, keep, mode, out.plan_);
  out.move(ctx, view);
}

template <class Context, class Entry>
compacted<Entry> compact(Context& ctx, layer_view<Entry> const& view, keep_set const& keep,
                         compaction mode = compaction::stable) {
  compacted<Entry> out;
  compact(ctx, view, keep, mode, out);
  return out;
}

/// Executes a plan that was inspected, stored or made elsewhere; checked again, as a whole, before anything moves.
///
/// Errors   contract_violation: unsound view; plan of another view, epoch or other lengths, or one whose making was
///          refused; moves that leave the row, write its read-only prefix or do not ascend; a source below the new
///          length that no later move fills, so that its token would be there twice; unequal lengths on a table that
///          heads share; rows common to all heads or layers but different moves or lengths; page-wise quantisation. The
///          cache is untouched then, and the rest is as with compact().
template <class Context, class Entry>
void apply(Context& ctx, layer_view<Entry> const& view, move_plan const& plan, compacted<Entry>& out) {
  out.ready_ = false;
  moves::expect_rows_move("apply", view);
  validate(view, ctx.scratch());
  moves::expect_plan("apply", view, plan);
  moves::expect_movable("apply", view, plan);
  out.plan_ = plan;
  out.move(ctx, view);
}

template <class Context, class Entry>
compacted<Entry> apply(Context& ctx, layer_view<Entry> const& view, move_plan const& plan) {
  compacted<Entry> out;
  apply(ctx, view, plan, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
