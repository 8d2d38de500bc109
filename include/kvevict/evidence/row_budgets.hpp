// SPDX-License-Identifier: Apache-2.0
// The host's rows of a plan and their budgets, from lengths and the protected tokens.
#pragma once

#include <algorithm>

#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/rank.hpp>
#include <kvevict/evidence/planning.hpp>
#include <kvevict/evidence/stack_budget.hpp>
#include <kvevict/evidence/units.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// All rows, whole, from lengths alone: without scores and positions.
template <class Entry> score_rows rows_of_lengths(frame& scratch, layer_view<Entry> const& cache, budget const& want) {
  score_rows out;
  std::int64_t const n = cache.rows();
  auto* begin = scratch.allocate<std::int64_t>(n + 1);
  auto* rows = scratch.allocate<row>(n);
  begin[0] = 0;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < n; ++r) {
    auto const b = static_cast<std::int32_t>(r / cache.heads()), h = static_cast<std::int32_t>(r % cache.heads());
    std::int32_t const tokens = cache.length(b, h);
    rows[r] = {b, h, tokens, 0, tokens, tokens, tokens, false};
    begin[r + 1] = begin[r] + tokens;
    longest = std::max<std::int64_t>(longest, tokens);
  }
  out.rows = rows, out.sequences = cache.sequences(), out.heads = cache.heads();
  out.begin = begin, out.layer = want.layer, out.layers = cache.pages.layers;
  out.most_tokens = longest, out.total_floats = begin[n];
  out.first_head = want.head, out.model_heads = want.head_count;
  return out;
}

/// The evictable interval of one row, as ranks.
inline void protect_row(score_rows const& rows, std::int64_t r, std::int32_t front, std::int32_t back) {
  row& it = rows.rows[r];
  protect_interval(it, front, back);
  if (rows.positions == nullptr || it.candidates == 0) return;
  std::int32_t const* const positions = rows.positions + rows.begin[r];
  it.first = number_of_rank(positions, it.tokens, it.first);
  it.last = behind(number_of_rank(positions, it.tokens, it.last - 1));
}

/// As many tokens lie between the ends as were ranked there: of equal positions nobody knows which one is protected.
inline void expect_distinct(score_rows const& rows, std::int64_t r) {
  row const& it = rows.rows[r];
  if (rows.positions == nullptr || it.candidates == 0) return;
  if (rows.count_evictable(r) != it.candidates) messages::equal_positions(rows.verb(), it.sequence, it.head);
}

/// How many tokens of a row that observe() takes in are new; of a scattered one those from the position of the first
/// of its sequence's `count` rows on, and none lies behind the last.
inline std::int32_t expect_newest(score_rows const& rows, std::int64_t r, row_places const& places, std::int32_t count,
                                  bool is_shard) {
  row const& it = rows.rows[r];
  if (rows.positions == nullptr || it.tokens == 0 || places.positions == nullptr) return count;
  std::int32_t const* const positions = rows.positions + rows.begin[r];
  std::int64_t const newest = *std::max_element(positions, positions + it.tokens),
                     last = places.position(it.sequence, count - 1), first = places.position(it.sequence, 0);
  if (last < newest) messages::older_tokens(older_fault::rows_before_newest, it.sequence, it.head, newest, last);
  auto const fresh = std::count_if(positions, positions + it.tokens, [=](std::int32_t p) { return p >= first; });
  if (older_fault const wrong = check_fresh(fresh, count, is_shard); wrong != older_fault::none)
    messages::older_tokens(wrong, it.sequence, it.head, fresh, count);
  return static_cast<std::int32_t>(fresh);
}

inline void expect_budget(sequence_plan const& p, protect const& keep, std::int32_t b) {
  if (p.wrong == sequence_plan::fault::no_budget) messages::negative_budget("plan", p.asked, b);
  if (p.wrong == sequence_plan::fault::other_lengths) messages::other_lengths(b, p.head, p.layer, p.given, p.has);
  if (p.wrong != sequence_plan::fault::none)
    messages::budget_below_protected(p.asked, p.protected_tokens, b, p.front, p.page > 1 ? keep.recent : p.back,
                                     p.page);
}

/// Rows (b, h) of heads [head, head + heads) as it was decided.
inline void assign_rows(score_rows const& out, sequence_plan const& p, protect const& keep, sharing share,
                        std::int32_t b, std::int32_t head, std::int32_t heads) {
  expect_budget(p, keep, b);
  for (std::int32_t h = head; p.cut && h < head + heads; ++h) {
    std::int64_t const r = std::int64_t{b} * out.heads + h;
    row_ends const ends = ends_of(p, keep, out.rows[r].tokens);
    protect_row(out, r, ends.front, ends.back);
    assign_budget(out.rows[r], p, share, out.heads);
    if (out.rows[r].active) expect_distinct(out, r);
    if (pages_beyond_budget(out.rows[r], p, share))
      messages::budget_below_protected(p.asked, out.rows[r].protected_tokens(), b, p.front, keep.recent, p.page);
  }
}

/// Every unit of the view's rows; heads of common lengths are decided once.
template <class Entry, class Layers>
void assign_units(score_rows const& out, protect const& keep, Layers const& layers, model_layers<Entry> const& all,
                  sharing share, std::int32_t page) {
  layer_view<Entry> const& cache = *all.cache;
  std::int32_t const H = cache.heads(), L = cache.pages.layers, S = cache.sequences() / L;
  std::int32_t const step = share == sharing::heads || all.equal_heads() ? std::max(H, 1) : 1,
                     unit = share == sharing::heads ? H : 1;
  for (std::int32_t b = 0; b < cache.sequences(); ++b)
    if (all.want->of(b) < 1 && !all.want->keeps_whole(b)) messages::negative_budget("plan", all.want->of(b), b);
  auto const assign = [&](sequence_plan const& p, std::int32_t b, std::int32_t h) {
    assign_rows(out, p, keep, share, b, h, step);
  };
  auto const decide = [&](std::int32_t b, std::int32_t h) {
    if (!all.known() && !all.want->keeps_whole(b)) return assign(plan_alone(keep, layers, all, b, h, unit, page), b, h);
    if (!all.known()) return;
    unit_plan<Layers, Entry> const plan(keep, layers, all, b, h, unit, page);
    for (std::int32_t row = b; row < cache.sequences(); row += S) {
      if (!all.want->keeps_whole(row)) assign(plan.of_layer(all.layer_of(row), all.want->of(row)), row, h);
      if (!all.in_view()) return;
    }
  };
  for (std::int32_t b = 0; b < (all.in_view() ? S : cache.sequences()); ++b)
    for (std::int32_t h = 0; h < H; h += step) decide(b, h);
}

/// Units of all layers of the view: each head's, or all heads'.
template <class Entry>
void assign_stack(score_rows const& out, layer_view<Entry> const& cache, protect const& keep, budget const& want,
                  bool each_head, std::int32_t page) {
  std::int32_t const step = each_head ? 1 : std::max(cache.heads(), 1);
  for (std::int32_t b = 0; b < cache.sequences(); ++b)
    for (std::int32_t h = 0; h < cache.heads() && !want.keeps_whole(b); h += step) {
      unit_heads const of = each_head ? head_of_unit(want, h) : heads_of_unit(cache, want);
      assign_rows(out, plan_stack(keep, cache, want, b, of, page), keep, sharing::stack, b, h, step);
    }
}

/// Gives every row its budget, or leaves it whole. `page`: tokens that stay or go together, 1 where each does by
/// itself.
template <class Entry, class Layers>
void assign_budgets(score_rows const& out, layer_view<Entry> const& cache, protect const& keep, Layers const& layers,
                    budget const& want, sharing share, std::int32_t page) {
  if constexpr (has_units<Layers>)
    if (share != sharing::cap && moves_budget(layers))
      return assign_units<Entry>(out, keep, layers, model_layers<Entry>{&cache, &want}, share, page);
  std::int32_t const H = cache.heads();
  if (share == sharing::stack || (after_scores<Layers>() && share != sharing::cap))
    return assign_stack(out, cache, keep, want, share == sharing::none, page);
  for (std::int32_t b = 0; b < cache.sequences(); ++b) {
    if (want.keeps_whole(b)) continue;
    row* const of = out.rows + std::int64_t{b} * H;
    std::int64_t total = 0, rests = 0;
    std::int32_t longest = 0;
    for (std::int32_t h = 0; h < H; ++h)
      total += of[h].tokens, rests += of[h].tokens % page, longest = std::max(longest, of[h].tokens);
    budget const asked = want.in_layer(cache.pages.layer_of(b));
    auto const p =
        plan_sequence(keep, layers, asked, share, b, H, total, longest, cache.read_only_tokens(b), page, rests);
    assign_rows(out, p, keep, share, b, 0, H);
  }
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
