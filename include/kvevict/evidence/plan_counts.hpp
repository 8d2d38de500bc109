// SPDX-License-Identifier: Apache-2.0
// How many tokens a plan will leave, known before it is made.
#pragma once

#include <limits>
#include <type_traits>
#include <vector>

#include <kvevict/cache/validate.hpp>
#include <kvevict/evidence/expect_fit.hpp>
#include <kvevict/evidence/row_budgets.hpp>
#include <kvevict/evidence/scored_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Tokens that plan() leaves in every row, as far as lengths and the budget determine them.
struct planned_counts {
  static constexpr std::int32_t by_scores = -1;
  std::int32_t heads = 0;
  std::vector<std::int32_t> rows;  // (B·H); by_scores: heads share a budget that they exceed, or a threshold decides
  // (B) Σ over the heads; by_scores: a threshold decides, or heads of all layers share a budget that they exceed
  std::vector<std::int64_t> sequences;

  std::int32_t operator()(std::int32_t b, std::int32_t h) const {
    return rows[static_cast<std::size_t>(std::int64_t{b} * heads + h)];
  }
};

/// The counts of plan(ctx, p, evidence of `cache`, b), on the host while a device has yet to plan: a scheduler that is
/// a step ahead takes pages for them and goes on; which tokens they are is read later, or never.
///
///   count = N where a row is kept whole, else its budget
///
/// Shapes   of `cache` the table's sequences, heads and layers, the lengths and `read_only`, all in the host's memory,
///          and the budget's arrays, too; no page and no table is read.
/// Cost     O(B·H), for layers::pyramid times the layers; no allocation after the first call of a size.
/// Errors   contract_violation as plan(), of lengths, options and budgets; `out` is then as it was.
/// Notes    Of policies whose select stage keeps each row's budget, as select::best and select::pages do. Rows keep
///          fewer where they have not as much that later rows see; a sequence that `outcomes` leaves whole keeps N.
template <class Policy, class Entry>
void plan_counts(host& ctx, Policy const& p, layer_view<Entry> const& cache, budget const& b, planned_counts& out) {
  validation::check_shape(cache);
  constexpr auto endless = [](std::int32_t, std::int32_t) { return std::numeric_limits<std::int32_t>::max(); };
  validation::check_lengths(cache, endless);  // the table may be a device's
  if constexpr (stages::says_one_set<decltype(p.layers)>) contract::expect_stack(cache.pages.layers, b.layer_count);
  planning::expect_options("plan", ctx, p, b, cache.pages.layers, cache.heads());
  frame scratch(ctx.scratch());
  score_rows const rows = planning::rows_of_lengths(scratch, cache, b);
  planning::assign_budgets(rows, cache, p.protect, p.layers, b, Policy::budgets, contract::page_of(p, cache));
  std::int32_t const H = cache.heads();
  out.heads = H;
  out.rows.resize(static_cast<std::size_t>(rows.count()));
  out.sequences.assign(static_cast<std::size_t>(cache.sequences()), 0);
  for (std::int64_t r = 0; r < rows.count(); ++r) {
    row const& it = rows.rows[r];
    auto const i = static_cast<std::size_t>(r);
    std::int64_t& sum = out.sequences[static_cast<std::size_t>(it.sequence)];
    bool const moves = Policy::budgets == sharing::cap || Policy::budgets == sharing::stack ||
                       planning::after_scores<std::remove_cvref_t<decltype(p.layers)>>();
    out.rows[i] = it.active && (moves || Policy::budgets != sharing::none) ? planned_counts::by_scores : it.budget;
    if (it.active && moves) sum = planned_counts::by_scores;
    if (sum != planned_counts::by_scores) sum += it.budget;
  }
}

template <class Policy, class Entry>
planned_counts plan_counts(host& ctx, Policy const& p, layer_view<Entry> const& cache, budget const& b) {
  planned_counts out;
  plan_counts(ctx, p, cache, b, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
