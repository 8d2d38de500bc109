// SPDX-License-Identifier: Apache-2.0
// From a keep set to moves, and the checks that both must pass before a cache is written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/move_interrupted.hpp>
#include <kvevict/cache/move_plan.hpp>
#include <kvevict/cache/validate.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/kernels/move_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace moves {

enum fault : std::int32_t { none, other_length, out_of_order, prefix_lost };

template <class Entry> fault fault_of(layer_view<Entry> const& v, keep_set const& keep, std::int64_t r) {
  auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
  slice<std::int32_t const> const kept = keep.row(r);
  std::int32_t const n = v.length(b, h), fixed = std::min(n, v.read_only_tokens(b));
  if (keep.lengths[static_cast<std::size_t>(r)] != n) return other_length;
  std::int32_t wrong = kept.empty() || (kept[0] >= 0 && kept[kept.size - 1] < n) ? 0 : 1;
  for (std::int64_t i = 1; i < kept.size; ++i) wrong |= int{kept[i - 1] >= kept[i]};  // no branch, no bool: in vectors
  if (wrong != 0) return out_of_order;
  return fixed > 0 && (kept.size < fixed || kept[fixed - 1] != fixed - 1) ? prefix_lost : none;
}

template <class Entry>
void violate(char const* verb, layer_view<Entry> const& v, keep_set const& keep, std::int64_t r, fault f) {
  auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
  std::int32_t const n = v.length(b, h);
  if (f == other_length) messages::keep_set_of_other_length(verb, b, h, n, keep.lengths[static_cast<std::size_t>(r)]);
  if (f == out_of_order) messages::keep_set_out_of_order(verb, b, h, n);
  messages::keep_set_without_prefix(verb, b, h, v.read_only_tokens(b));
}

/// The keep set belongs to this view, whose fingerprint is `now`, and keeps its read-only prefixes.
template <class Context, class Entry>
void expect_kept_rows(char const* verb, Context& ctx, layer_view<Entry> const& v, fingerprint const& now,
                      keep_set const& keep) {
  if (keep.refused) messages::keep_set_refused(verb);
  KVEVICT_EXPECTS(keep.sequences == v.sequences() && keep.heads == v.heads(), verb, ": the keep set has ",
                  keep.sequences, " sequences of ", keep.heads, " heads and the cache ", v.sequences(), " of ",
                  v.heads(), "; use the view that was planned on");
  contract::expect_rows(verb, keep);
  contract::expect_same(verb, "keep set", keep.made_for, now);
  frame scratch(ctx.scratch());
  auto* const faults = scratch.template allocate<fault>(v.rows());
  ctx.for_each(
      v.rows(), [&](std::int64_t r, std::int32_t) { faults[r] = fault_of(v, keep, r); }, keep.kept());
  for (std::int64_t r = 0; r < v.rows(); ++r)
    if (faults[r] != none) violate(verb, v, keep, r, faults[r]);
}

/// And heads that share a table keep equally many.
template <class Context, class Entry>
void expect_keep(char const* verb, Context& ctx, layer_view<Entry> const& v, fingerprint const& now,
                 keep_set const& keep) {
  expect_kept_rows(verb, ctx, v, now, keep);
  if (v.pages.per_head()) return;
  for (std::int64_t r = 0; r < v.rows(); ++r) {
    std::int64_t const first = r / v.heads() * v.heads();
    if (keep.row(r).size != keep.row(first).size)
      messages::unequal_counts(verb, r / v.heads(), r - first, keep.row(first).size, keep.row(r).size);
  }
}

/// Kept tokens of a row that stay where they are when the row is filled in that way; they are the first ones.
inline std::int64_t unmoved(slice<std::int32_t const> kept, compaction mode) {
  if (mode == compaction::fill_holes) return std::lower_bound(kept.begin(), kept.end(), kept.size) - kept.begin();
  std::int64_t low = 0, high = kept.size;  // kept[i] − i never falls
  while (low < high) {
    std::int64_t const middle = (low + high) / 2;
    if (kept[middle] == middle)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/// Slots of [0, kept.size) that no kept token occupies, in ascending order.
inline void write_holes(slice<std::int32_t const> kept, std::int64_t stay, std::int32_t* out) {
  std::int32_t slot = 0;
  for (std::int64_t i = 0; i < stay; ++i, ++slot)
    while (slot < kept[i]) *out++ = slot++;
  while (slot < kept.size) *out++ = slot++;
}

inline void expect_mode(char const* verb, compaction mode) {
  KVEVICT_EXPECTS(mode == compaction::stable || mode == compaction::fill_holes, verb, ": there is no compaction ",
                  static_cast<std::int32_t>(mode), "; give compaction::stable or compaction::fill_holes");
}

/// The cache does not say that its tokens stay where they are.
template <class Entry> void expect_rows_move(char const* verb, layer_view<Entry> const& v) {
  KVEVICT_EXPECTS(
      v.can.rows_move, verb,
      ": the cache says that its rows cannot move (capability::rows_move); drop pages, rewrite the table or "
      "mask what is not kept instead");
}

/// Scales that cover a page or a channel would be wrong for a token that comes from another page.
template <class Entry> void expect_movable(char const* verb, layer_view<Entry> const& v, move_plan const& p) {
  for (component const& c : v)
    if (c.scope == quant_scope::page_channel && p.moves() != 0) messages::page_wise(verb, name_of(c.what));
}

/// Bytes that a plan moves, of rows that heads or layers share and of aliases once.
template <class Entry> std::int64_t bytes_of(layer_view<Entry> const& v, move_plan const& p) {
  std::int64_t bytes = 0;
  for (std::size_t r = 0; r + 1 < p.row_begin.size(); ++r) {
    auto const b = static_cast<std::int32_t>(r) / v.heads(), h = static_cast<std::int32_t>(r) % v.heads();
    for (component const& c : v)
      if (c.alias_of < 0 && v.owns(c, b, h)) bytes += (p.row_begin[r + 1] - p.row_begin[r]) * c.rows.row_bytes();
  }
  return bytes;
}

/// The moves of a keep set of this view.
template <class Context, class Entry>
void write_plan(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, compaction mode, move_plan& out) {
  auto const rows = static_cast<std::size_t>(view.rows());
  out.sequences = keep.sequences, out.heads = keep.heads;
  out.lengths_before = keep.lengths;
  out.lengths.resize(rows), out.row_begin.resize(rows + 1);
  out.row_begin[0] = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    slice<std::int32_t const> const kept = keep.row(static_cast<std::int64_t>(r));
    out.lengths[r] = static_cast<std::int32_t>(kept.size);
    out.row_begin[r + 1] = out.row_begin[r] + kept.size - moves::unmoved(kept, mode);
  }
  out.sources.resize(static_cast<std::size_t>(out.row_begin[rows]));
  out.destinations.resize(out.sources.size());
  ctx.for_each(
      view.rows(),
      [&](std::int64_t r, std::int32_t) {
        slice<std::int32_t const> const kept = keep.row(r);
        std::int64_t const first = out.row_begin[static_cast<std::size_t>(r)],
                           stay = kept.size - (out.row_begin[static_cast<std::size_t>(r) + 1] - first);
        std::copy(kept.begin() + stay, kept.end(), out.sources.begin() + first);
        moves::write_holes(kept, stay, out.destinations.data() + first);
      },
      keep.kept());
  out.order = view.order;
  for (std::size_t r = 0; r < rows; ++r)  // in order still, where the holes lay behind all that stayed
    if (out.row_begin[r] != out.row_begin[r + 1] && out.destinations[static_cast<std::size_t>(out.row_begin[r])] <
                                                        out.lengths[r] - (out.row_begin[r + 1] - out.row_begin[r]))
      out.order = row_order::scattered;
}

/// Everything that can be wrong with a keep set and its view, then its moves.
template <class Context, class Entry>
void plan_checked(char const* verb, Context& ctx, layer_view<Entry> const& view, keep_set const& keep, compaction mode,
                  move_plan& out) {
  out.refused = true;
  expect_mode(verb, mode);
  expect_rows_move(verb, view);
  validate(view, ctx.scratch());
  fingerprint const now = fingerprint_of(view);
  expect_keep(verb, ctx, view, now, keep);
  write_plan(ctx, view, keep, mode, out);
  expect_movable(verb, view, out);
  out.made_for = now;
  out.refused = false;
}

/// The one step that may fail in the middle, when an executor gives up: then the plan is the error's.
template <class Context, class Entry> void execute(Context& ctx, layer_view<Entry> const& v, move_plan& plan) {
#if KVEVICT_EXCEPTIONS
  try {
    kernels::move_rows(ctx, v, plan);
  } catch (move_interrupted& e) {
    e.plan = std::move(plan);
    throw;
  }
#else
  kernels::move_rows(ctx, v, plan);
#endif
}

}  // namespace moves

/// How the kept tokens come to fill the front of their rows; nothing is moved. `apply` executes it.
///
/// Cost     O(pages) checks, O(kept), one worker per row.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; unequal counts on a table that heads share; page-wise quantisation where tokens would move.
///          `out` is `refused` then, whatever is thrown, and no verb takes it.
template <class Context, class Entry>
void plan_moves(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, compaction mode, move_plan& out) {
  moves::plan_checked("plan_moves", ctx, view, keep, mode, out);
}

template <class Context, class Entry>
move_plan plan_moves(Context& ctx, layer_view<Entry> const& view, keep_set const& keep,
                     compaction mode = compaction::stable) {
  move_plan out;
  plan_moves(ctx, view, keep, mode, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
