// SPDX-License-Identifier: Apache-2.0
// The host's rows of a plan: from a cache, a budget and the protected tokens.
#pragma once

#include <algorithm>
#include <limits>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/new_rows.hpp>
#include <kvevict/evidence/order.hpp>
#include <kvevict/evidence/planning.hpp>
#include <kvevict/evidence/units.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

template <class Entry>
score_rows make_rows(bool observed, frame& scratch, layer_view<Entry> const& cache, budget const& want) {
  score_rows out;
  out.observed = observed;
  expect_positions(out.verb(), cache);
  expect_order(cache, want);
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
  out.begin = begin, out.values = scratch.allocate<float>(begin[n]);
  out.layer = want.layer, out.layers = cache.pages.layers;
  out.most_tokens = longest, out.total_floats = begin[n];
  if (cache.order == row_order::ascending) return out;
  component const* position = cache.find(role::position);
  auto* positions = scratch.allocate<std::int32_t>(begin[n]);
  for (std::int64_t r = 0; r < n; ++r) {
    auto const at = cache.rows_of(*position, rows[r].sequence, rows[r].head);
    each_run(at, 0, rows[r].tokens, [&](std::int64_t first, std::int64_t count, std::byte const* p) {
      for (std::int64_t i = 0; i < count; ++i, p += at.slot_stride)
        positions[begin[r] + first + i] = *reinterpret_cast<std::int32_t const*>(p);
    });
  }
  out.positions = positions;
  return out;
}

/// The evictable interval of one row, as ranks.
inline void protect_row(frame& scratch, score_rows const& rows, std::int64_t r, std::int32_t front, std::int32_t back) {
  row& it = rows.rows[r];
  protect_interval(it, front, back);
  if (rows.positions == nullptr || it.candidates == 0) return;
  auto* sorted = scratch.allocate<std::int32_t>(it.tokens);
  kvevict::copy_n(rows.positions + rows.begin[r], it.tokens, sorted);
  std::int32_t const first = it.first, newest = it.last - 1;
  std::nth_element(sorted, sorted + first, sorted + it.tokens);
  it.first = sorted[first];
  std::nth_element(sorted, sorted + newest, sorted + it.tokens);
  it.last = behind(sorted[newest]);
}

/// As many tokens lie between the ends as were ranked there: of equal positions nobody knows which one is protected.
inline void expect_distinct(score_rows const& rows, std::int64_t r) {
  row const& it = rows.rows[r];
  if (rows.positions == nullptr || it.candidates == 0) return;
  std::int64_t found = 0;
  for (std::int32_t j = 0; j < it.tokens; ++j) found += rows.evictable(r, j);
  if (found != it.candidates) messages::equal_positions(rows.verb(), it.sequence, it.head);
}

inline void expect_budget(sequence_plan const& p, std::int32_t b) {
  if (p.wrong == sequence_plan::fault::no_budget) messages::negative_budget("plan", p.asked, b);
  if (p.wrong == sequence_plan::fault::other_lengths) messages::other_lengths(b, p.head, p.layer, p.given, p.has);
  if (p.wrong != sequence_plan::fault::none)
    messages::budget_below_protected(p.asked, p.protected_tokens, b, p.front, p.back);
}

/// Rows (b, h) of heads [head, head + heads) as it was decided.
inline void assign_rows(frame& scratch, score_rows const& out, sequence_plan const& p, sharing share, std::int32_t b,
                        std::int32_t head, std::int32_t heads) {
  expect_budget(p, b);
  for (std::int32_t h = head; p.cut && h < head + heads; ++h) {
    std::int64_t const r = std::int64_t{b} * out.heads + h;
    protect_row(scratch, out, r, p.front, p.back);
    assign_budget(out.rows[r], p, share, out.heads);
    if (out.rows[r].active) expect_distinct(out, r);
  }
}

/// Every unit of the view's rows; heads of common lengths are decided once.
template <class Entry, class Layers>
void assign_units(frame& scratch, score_rows const& out, protect const& keep, Layers const& layers,
                  model_layers<Entry> const& all, sharing share) {
  layer_view<Entry> const& cache = *all.cache;
  std::int32_t const H = cache.heads(), L = cache.pages.layers, S = cache.sequences() / L;
  std::int32_t const step = share == sharing::heads || all.equal_heads() ? std::max(H, 1) : 1,
                     unit = share == sharing::heads ? H : 1;
  for (std::int32_t b = 0; b < cache.sequences(); ++b)
    if (all.want->of(b) < 1 && !all.want->keeps_whole(b)) messages::negative_budget("plan", all.want->of(b), b);
  auto const decide = [&](std::int32_t b, std::int32_t h) {
    if (!all.known() && !all.want->keeps_whole(b))
      return assign_rows(scratch, out, plan_alone(keep, layers, all, b, h, unit), share, b, h, step);
    if (!all.known()) return;
    unit_plan<Layers, Entry> const plan(keep, layers, all, b, h, unit);
    for (std::int32_t row = b; row < cache.sequences(); row += S) {
      if (!all.want->keeps_whole(row))
        assign_rows(scratch, out, plan.of_layer(all.layer_of(row), all.want->of(row)), share, row, h, step);
      if (!all.in_view()) return;
    }
  };
  for (std::int32_t b = 0; b < (all.in_view() ? S : cache.sequences()); ++b)
    for (std::int32_t h = 0; h < H; h += step) decide(b, h);
}

}  // namespace planning

/// Scratch of the rows of one plan: their descriptions, scores and, where rows are scattered, positions.
constexpr std::int64_t rows_bytes(cache_shape const& s) {
  std::int64_t const n = s.rows(), per_token = scratch_step(n * s.tokens * 4), sorting = n * scratch_step(s.tokens * 4);
  return scratch_step((n + 1) * 8) + scratch_step(n * std::int64_t{sizeof(row)}) + 2 * per_token + sorting;
}

namespace kernels {

void has_kernel(plan_rows_tag, host&);
void has_kernel(observe_rows_tag, host&);
void has_kernel(new_rows_tag, host&);
void has_kernel(leave_faulty_out_tag, host&);

/// Rows with their budgets for plan(). Checks the budget against the protected tokens.
template <class Entry, class Layers>
score_rows kernel(plan_rows_tag, host&, frame& scratch, layer_view<Entry> const& cache, protect const& keep,
                  Layers const& layers, budget const& want, sharing share) {
  score_rows out = planning::make_rows(false, scratch, cache, want);
  if constexpr (planning::has_units<Layers>)
    if (share != sharing::cap && planning::moves_budget(layers)) {
      planning::assign_units<Entry>(scratch, out, keep, layers, planning::model_layers<Entry>{&cache, &want}, share);
      return out;
    }
  std::int32_t const H = cache.heads();
  for (std::int32_t b = 0; b < cache.sequences(); ++b) {
    if (want.keeps_whole(b)) continue;
    row* const of = out.rows + std::int64_t{b} * H;
    std::int64_t total = 0;
    std::int32_t longest = 0;
    for (std::int32_t h = 0; h < H; ++h) total += of[h].tokens, longest = std::max(longest, of[h].tokens);
    budget const asked = want.in_layer(cache.pages.layer_of(b));
    auto const p = planning::plan_sequence(keep, layers, asked, share, b, H, total, longest, cache.read_only_tokens(b));
    planning::assign_rows(scratch, out, p, share, b, 0, H);
  }
  return out;
}

/// Rows for observe(): all tokens of those that have new ones; they are known by row.new_from. Rows of a sequence that
/// provides none are left out.
template <class Evidence, class Layers>
score_rows kernel(observe_rows_tag, host&, frame& scratch, Evidence const& e, protect const& keep, Layers const& layers,
                  budget const& want) {
  score_rows out = planning::make_rows(true, scratch, e.cache, want);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row& it = out.rows[r];
    if (want.keeps_whole(it.sequence)) {
      planning::leave_out(it);
      continue;
    }
    planning::expect_new_rows(e, it);
    if (want.of(it.sequence) < planning::least_budget<Layers>())
      messages::negative_budget("observe", want.of(it.sequence), it.sequence);
    if (rows_of(e, it.sequence) == 0) {
      planning::leave_out(it);
      continue;
    }
    planning::protect_row(scratch, out, r, 0, rows_of(e, it.sequence));
    planning::expect_distinct(out, r);
    planning::observe_all(it, out.positions != nullptr, keep, layers,
                          want.in_layer(e.cache.pages.layer_of(it.sequence)));
    if (e.older_of(it.sequence) == older_tokens::zero) planning::start_at_zero(it);
  }
  return out;
}

/// A fault is raised on the host, and the call made once more, see one_by_one.hpp.
inline void kernel(leave_faulty_out_tag, host&, score_rows const&) {}

/// The most rows that a sequence provides.
template <class Evidence> std::int32_t kernel(new_rows_tag, host&, Evidence const& e) {
  std::int32_t most = 0;
  for (std::int32_t b = 0; b < e.cache.sequences(); ++b) most = std::max(most, rows_of(e, b));
  return most;
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
