// SPDX-License-Identifier: Apache-2.0
// Closes the gaps that eviction leaves between positions: keys are turned from where they were to contiguous positions.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/apply/turned_rows.hpp>
#include <kvevict/cache/validate.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/rope_messages.hpp>
#include <kvevict/evidence/order.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/rope_steps.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace turns {

/// The place of every token of a scattered row in order of position.
template <class Entry>
void rank(turned_rows<Entry> const& in, std::int32_t b, std::int32_t h, std::int32_t* slots, std::int32_t* ranks) {
  std::int32_t const n = in.view.length(b, h);
  auto const position = [&](std::int32_t slot) { return in.position(b, h, slot); };
  for (std::int32_t t = 0; t < n; ++t) slots[t] = t;
  std::sort(slots, slots + n, [&](std::int32_t x, std::int32_t y) { return position(x) < position(y); });
  for (std::int32_t i = 0; i < n; ++i) {
    if (position(slots[i]) < 0 || (i > 0 && position(slots[i - 1]) == position(slots[i])))
      messages::positions_cannot_turn(b, h);
    ranks[slots[i]] = i;
  }
}

/// Every row can be turned: its positions are in order, or can be brought into one, and its prefix stays.
template <class Entry> void expect_rows(turned_rows<Entry>& in, frame& scratch, std::int64_t longest) {
  layer_view<Entry> const& v = in.view;
  bool const scattered = v.order == row_order::scattered;
  std::int32_t *slots = nullptr, *ranks = nullptr;
  if (scattered) {
    slots = scratch.allocate<std::int32_t>(longest), ranks = scratch.allocate<std::int32_t>(v.rows() * longest);
    in.ranks = ranks, in.stride = longest;
  }
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h) {
      std::int32_t const n = v.length(b, h), others = v.length(in.position_sequence(b), in.position_head(h));
      if (n != others) messages::common_positions_of_other_length(b, h, n, others);
      if (scattered)
        rank(in, b, h, slots, ranks + (std::int64_t{b} * v.heads() + h) * longest);
      else if (v.owns(in.position_component(), b, h))
        planning::expect_ascending(v, in.position_component(), b, h, 1, 0);
      for (std::int32_t t = 0; t < std::min(n, v.read_only_tokens(b)); ++t)
        if (std::int32_t const p = in.position(b, h, t), to = in.target(b, h, t); p != to)
          messages::prefix_would_turn(b, h, t, p, to);
    }
}

/// All tokens of a row in one component. Neighbours often move by as much, as where one stretch was evicted: then the
/// cosines and sines of the last token are those of the next. `cosines`: room for one of every pair.
template <class Entry>
void turn_row(turned_rows<Entry> const& in, component const& c, turning const& by, std::int32_t b, std::int32_t h,
              turn* cosines) {
  token_rows<Entry> const rows = in.view.rows_of(c, b, h);
  std::int64_t last = 0;
  for (std::int32_t t = 0; t < in.view.length(b, h); ++t) {
    std::int64_t const far = std::int64_t{in.target(b, h, t)} - in.position(b, h, t);
    if (far == 0) continue;
    if (far != last)
      for (std::int32_t i = 0; i < by.count(); ++i) cosines[i] = turn_by(far, by.steps[i]);
    last = far;
    std::byte* const row = rows(t);
    with_type(c.type, [&](auto type) {
      for (std::int32_t i = 0; i < by.count(); ++i) turn_pair<decltype(type)>(row, c.rows, by.pair(i), cosines[i]);
    });
  }
}

/// All rows of all components that turn. What the executor throws before it has begun is thrown.
template <class Entry> void turn_rows(host& ctx, turned_rows<Entry> const& in, frame& scratch, std::int64_t longest) {
  layer_view<Entry> const& v = in.view;
  std::int32_t most = 0;
  for (turning const& t : in.by) most = std::max(most, t.count());
  turn* const cosines = scratch.allocate<turn>(std::int64_t{ctx.concurrency()} * most);
  std::exception_ptr thrown;
  auto const turned = ctx.try_each(
      v.rows(),
      [&](std::int64_t r, std::int32_t worker) {
        auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
        for (std::int32_t i = 0; i < v.component_count; ++i)
          if (component const& c = v.begin()[i]; in.by[static_cast<std::size_t>(i)].width != 0 && v.owns(c, b, h))
            turn_row(in, c, in.by[static_cast<std::size_t>(i)], b, h, cosines + std::int64_t{worker} * most);
      },
      v.rows() * longest * most * 4, thrown);
#if KVEVICT_EXCEPTIONS
  if (turned != host::progress::all) std::rethrow_exception(thrown);
#else
  static_cast<void>(turned);
#endif
}

template <class Entry> void write_positions(turned_rows<Entry> const& in) {
  layer_view<Entry> const& v = in.view;
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h)
      for (std::int32_t t = 0; v.owns(in.position_component(), b, h) && t < v.length(b, h); ++t)
        if (std::int32_t const to = in.target(b, h, t); in.position(b, h, t) != to) in.position(b, h, t) = to;
}

}  // namespace turns

/// Turns the keys of every row to the positions first, first + 1, … in the order of their old ones, and writes those
/// into the position component: after compaction the model sees the kept tokens as if nothing had been between them.
/// Components that say rotation::rope turn (k, and of MLA the rotary part; V never), in place.
///
///   k'(p) = R(p)·k  →  R(p_new)·k = R(p_new − p)·k'(p)       the new position of the next token: first + length
///
/// Shapes   keys (H,N,D), positions (H,N) → the same. Ascending rows stay ascending; scattered ones keep their slots
///          and take the ranks of their positions. What heads or layers have in common is written once. Rows of
///          different lengths end at different positions, so that their next query is turned by different ones, too.
/// Cost     reads and writes of K, one rounding an element; tokens that stay where they are are not touched. Scratch
///          4·D bytes a component and, of scattered rows, one int32 a token.
/// Notes    The lengths and slots of keep sets stay what they are. What is remembered by position (query rings, the
///          rings of recent_attention) begins anew.
/// Errors   contract_violation: unsound view; no positions; positions that are not in order (scattered: equal or
///          negative); keys that something opaque turned, or that do not say what did; no rope, or one that does not
///          fit; keys of another type than f32, f16, bf16; a turned component that another aliases; a token of a
///          read-only prefix that is not at its new position already. Nothing has changed then; nor when memory runs
///          out or the executor throws before a row has turned. After that only an executor that gives up its tasks
///          makes it fail, and what it throws is thrown: the sequences of the call are lost then.
template <class Entry>
void rerotate(host& ctx, layer_view<Entry> const& view, rope const& by, std::int32_t first_position = 0) {
  validate(view, ctx.scratch());
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < view.rows(); ++r)
    longest = std::max<std::int64_t>(
        longest, view.length(static_cast<std::int32_t>(r / view.heads()), static_cast<std::int32_t>(r % view.heads())));
  frame scratch(ctx.scratch());
  turned_rows<Entry> rows = contract::expect_turnable(view, by, first_position, longest);
  for (turning& t : rows.by)
    if (t.width != 0) {
      auto* const steps = scratch.allocate<std::uint64_t>(t.count());
      kernels::rope_steps(ctx, by, t.width, steps);
      t.steps = steps;
    }
  turns::expect_rows(rows, scratch, longest);
  turns::turn_rows(ctx, rows, scratch, longest);
  turns::write_positions(rows);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
