// SPDX-License-Identifier: Apache-2.0
// What a plan does to a sequence and its rows: decided here once, for every context.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/evidence/page_ends.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Whether the heads of a sequence draw on one budget: those of a layer, or (`stack`) of all layers of the view; `cap`:
/// the budget is a cap (budget::no_cap: none) on rows that are scored in any case.
enum class sharing : std::uint8_t { none, heads, cap, stack };

namespace planning {

/// Which rows draw on one budget under that heads stage.
template <class Stage> constexpr sharing sharing_of() {
  if constexpr (requires { Stage::capped; })
    if (Stage::capped) return sharing::cap;
  if constexpr (requires { Stage::over_stack; })
    if (Stage::over_stack) return sharing::stack;
  return Stage::equal_counts ? sharing::none : sharing::heads;
}

/// What a plan does to a row, or to the heads of one layer that share a budget, from lengths alone. Shared by all
/// contexts.
struct sequence_plan {
  enum class fault : std::uint8_t { none, no_budget, budget_below_protected, other_lengths };

  fault wrong = fault::none;
  bool cut = false;  // else all is kept
  std::int32_t asked = 0, front = 0, back = 0, protected_tokens = 0, longest = 0;
  std::int64_t budget = 0, total = 0;  // of a row; of all heads, and their tokens, where they share the budget
  std::int32_t layer = 0, head = 0, given = 0, has = 0;  // of other_lengths
  std::int64_t first_part = 0, parts = 0;                // of sharing::stack: the layer's first row, and all rows
  std::int32_t page = 1;  // tokens of one, where pages are kept whole; of part-filled last ones `rests` among `total`
  std::int64_t rests = 0;
};

/// The protected tokens of a row that has so many, with that prefix, where no row had more; they must fit the budget.
/// Of whole pages no more than the budget: that a row's fit is seen when its own are known.
constexpr void find_protected(sequence_plan& p, protect const& keep, std::int32_t read_only, std::int32_t tokens) {
  std::int32_t const front = keep.front(read_only), back = keep.back(p.asked, read_only);
  auto most = static_cast<std::int32_t>(std::min<std::int64_t>(tokens, most_protected(front, back, p.page)));
  if (p.page > 1) most = std::min(most, p.asked);
  if (most < p.protected_tokens) return;
  p.front = front, p.back = back, p.protected_tokens = most;
  if (p.asked < most) p.wrong = sequence_plan::fault::budget_below_protected;
}

/// Whether a layer stage moves budget between layers, so that units.hpp plans them, or does not look at it at all.
template <class Layers> inline constexpr bool has_units = requires(Layers const& layers, layer_query const& q) {
  { layers.moves_budget() } -> std::same_as<bool>;
  layers.line_of(q);
};
template <class Layers> constexpr bool moves_budget(Layers const& layers) {
  if constexpr (has_units<Layers>)
    return layers.moves_budget();
  else
    return false;
}
/// Whether a layer stage divides a unit's budget once its scores are known: then rows of a unit that is cut are scored.
template <class Layers> constexpr bool after_scores() {
  if constexpr (requires { std::remove_cvref_t<Layers>::after_scores; })
    return std::remove_cvref_t<Layers>::after_scores;
  else
    return false;
}
template <class Layers> constexpr bool ignores_budget() {
  if constexpr (requires { Layers::ignores_budget; })
    return Layers::ignores_budget;
  else
    return false;
}
/// The least that a budget may be.
template <class Layers> constexpr std::int32_t least_budget() { return ignores_budget<Layers>() ? 0 : 1; }

/// Of a sequence whose layers have budgets of their own.
template <class Layers>
constexpr sequence_plan plan_sequence(protect const& keep, Layers const& layers, budget const& want, sharing share,
                                      std::int32_t b, std::int32_t heads, std::int64_t total, std::int32_t longest,
                                      std::int32_t read_only, std::int32_t page, std::int64_t rests) {
  sequence_plan p{};
  p.asked = want.of(b), p.total = total, p.longest = longest, p.page = page, p.rests = rests;
  if (p.asked < least_budget<Layers>()) {
    p.wrong = sequence_plan::fault::no_budget;
    return p;
  }
  bool const fits = share == sharing::heads ? total <= std::int64_t{p.asked} * heads : longest <= p.asked;
  p.cut = share == sharing::cap || !(fits || ignores_budget<Layers>());
  if (!p.cut) return p;
  find_protected(p, keep, read_only, longest);
  if (p.wrong != sequence_plan::fault::none) return p;
  p.budget = longest > p.asked ? layers(layer_query{p.asked, p.protected_tokens, longest, want.layer, want.layer_count})
                               : p.asked;
  if (share == sharing::heads) p.budget *= heads;
  return p;
}

/// What is protected of a row of that many tokens.
constexpr row_ends ends_of(sequence_plan const& p, protect const& keep, std::int32_t tokens) {
  row_ends const ends{p.front, p.back};
  return p.page == 1 ? ends : page_ends(ends, keep.recent, p.asked, tokens, p.page);
}

/// The evictable interval of one row in order: all but the `front` first and `back` newest tokens.
constexpr void protect_interval(row& it, std::int32_t front, std::int32_t back) {
  it.first = std::min(front, it.tokens);
  it.last = std::max(it.first, it.tokens - back);
  it.candidates = it.last - it.first;
}

/// The first rank behind a position; the largest has none, and is found not to be in the interval.
constexpr std::int32_t behind(std::int32_t position) {
  return position == std::numeric_limits<std::int32_t>::max() ? position : position + 1;
}

/// Whether a row whose interval is known is scored, and its budget. What heads share is handed out evenly, lower heads
/// first; their stage moves it.
constexpr void assign_budget(row& it, sequence_plan const& p, sharing share, std::int32_t heads) {
  bool const shared = share == sharing::heads || share == sharing::stack;
  std::int64_t const rest = it.tokens % p.page, pages = pages_within(p.budget, shared ? p.rests : rest, p.page);
  std::int64_t const part = p.first_part + it.head, parts = share == sharing::stack ? p.parts : heads;
  std::int64_t const mine = (shared ? pages / parts + (part < pages % parts ? 1 : 0) : pages) * p.page + rest;
  it.active = share == sharing::cap ? it.candidates > 0 : shared ? p.total > p.budget : it.tokens > p.budget;
  it.budget = !it.active              ? it.tokens
              : share == sharing::cap ? static_cast<std::int32_t>(std::min<std::int64_t>(mine, it.tokens))
                                      : static_cast<std::int32_t>(mine);
}

/// The budget does not hold the pages of a row that stay in any case.
constexpr bool pages_beyond_budget(row const& it, sequence_plan const& p, sharing share) {
  return p.page > 1 && (it.active || share == sharing::cap) && it.protected_tokens() > p.asked;
}

/// Turns a row whose interval excludes the new tokens into one that observe() reads: all tokens, the new ones known by
/// `fresh`. Its budget is the one that a plan of the layer alone gives it.
template <class Layers>
constexpr void observe_all(row& it, bool scattered, protect const& keep, Layers const& layers, budget const& want,
                           std::int32_t read_only) {
  std::int64_t const ends = std::int64_t{keep.front(read_only)} + keep.back(want.of(it.sequence), read_only);
  it.new_from = it.candidates == 0 ? std::numeric_limits<std::int32_t>::min() : it.last;
  it.first = scattered ? std::numeric_limits<std::int32_t>::min() : 0;
  it.last = scattered ? std::numeric_limits<std::int32_t>::max() : it.tokens;
  it.budget = want.of(it.sequence);
  if (it.tokens > it.budget)
    it.budget = layers(layer_query{it.budget, static_cast<std::int32_t>(std::min<std::int64_t>(ends, it.budget)),
                                   it.tokens, want.layer, want.layer_count});
  it.candidates = it.tokens;
  it.active = true;
}

/// A row of observe() whose older tokens have no state yet: all are as if they had just arrived.
constexpr void start_at_zero(row& it) { it.new_from = std::numeric_limits<std::int32_t>::min(); }

/// A row that observe() neither reads nor writes: no candidates, not active.
constexpr void leave_out(row& it) { it.candidates = 0, it.active = false; }

inline void expect_request(char const* verb, protect const& keep, budget const& want, std::int32_t layers,
                           std::int32_t least) {
  KVEVICT_EXPECTS(want.per_sequence != nullptr || want.tokens_per_head != 0 || least == 0, verb,
                  ": tokens_per_head is 0; give what a head shall keep, or budget::no_cap where the budget is a gate's "
                  "cap and there shall be none");
  KVEVICT_EXPECTS(want.layer_count <= most_layers, verb, ": a stack of ", want.layer_count, " layers; give at most ",
                  most_layers);
  KVEVICT_EXPECTS(layers >= 1 && want.layer >= 0 && want.layer <= std::int64_t{want.layer_count} - layers, verb,
                  ": layer ", want.layer, " of ", want.layer_count, " and a view of ", layers,
                  "; give budget.layer in [0, budget.layer_count), for a stack that of its first layer");
  KVEVICT_EXPECTS(keep.sinks >= 0 && keep.recent >= 0 && keep.recent_permille >= 0 && keep.recent_permille <= 1000,
                  verb, ": protect has a negative count or a share above 1000 permille; give sinks, recent ≥ 0");
}
/// A view of some heads of a model says which, and is told the lengths of all.
inline void expect_heads(char const* verb, budget const& want, std::int32_t heads) {
  KVEVICT_EXPECTS(want.head_count == 0 ? want.head == 0
                                       : want.head >= 0 && want.head <= std::int64_t{want.head_count} - heads &&
                                             want.lengths.data != nullptr,
                  verb, ": heads from ", want.head, " on of ", want.head_count, ", and a view of ", heads,
                  "; give budget.head in [0, head_count), and the lengths of all heads in budget.lengths");
}
/// What a policy and a budget ask, of a view of so many layers and heads.
template <class Context, class Policy>
void expect_options(char const* verb, Context& ctx, Policy const& p, budget const& b, std::int32_t layers,
                    std::int32_t heads) {
  expect_request(verb, p.protect, b, layers, least_budget<std::remove_cvref_t<decltype(p.layers)>>());
  expect_heads(verb, b, heads);
  if constexpr (requires { p.layers.validate(); }) p.layers.validate();
  if constexpr (requires { p.layers.validate(b); }) p.layers.validate(b);
  if constexpr (requires { p.layers.validate_shares(ctx); }) p.layers.validate_shares(ctx);
}

template <class Entry> void expect_positions(char const* verb, layer_view<Entry> const& cache) {
  KVEVICT_EXPECTS(cache.order == row_order::ascending || cache.find(role::position) != nullptr, verb,
                  ": the rows are scattered and the cache has no position component, so recency is unknown; add one "
                  "(role::position, "
                  "int32) or compact with compaction::stable");
}

}  // namespace planning

}  // namespace KVEVICT_ABI
}  // namespace kvevict
