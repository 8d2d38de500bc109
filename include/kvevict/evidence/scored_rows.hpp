// SPDX-License-Identifier: Apache-2.0
// From a policy and evidence to rows that a heads stage and selection can work on.
#pragma once

#include <kvevict/evidence/expect_fit.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/evidence/rows.hpp>
#include <kvevict/evidence/same_tokens.hpp>
#include <kvevict/evidence/unseen.hpp>
#include <kvevict/kernels/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// Tokens that stay or go together under that policy.
template <class Policy, class Entry> std::int32_t page_of(Policy const&, layer_view<Entry> const& cache) {
  return stages::says_whole_pages<decltype(Policy::select)> ? cache.pages.page_size : 1;
}

/// Rows with their budgets, before anything is scored.
template <class Context, class Policy, class Evidence>
score_rows budgeted_rows(Context& ctx, frame& scratch, Policy const& p, Evidence const& e, budget const& b) {
  if constexpr (stages::says_one_set<decltype(p.layers)>) expect_stack(e.cache.pages.layers, b.layer_count);
  score_rows rows =
      kernels::plan_rows(ctx, scratch, e.cache, p.protect, p.layers, b, Policy::budgets, page_of(p, e.cache), e.sees);
  capability const must = e.cache.demands();
  auto const compare = [&](together_over what, bool one_set, bool as_many) {
    if (one_set || as_many) kernels::same_tokens(ctx, e.cache, rows, planning::alike{what, !one_set, e.sees});
  };
  compare(together_over::heads, Policy::one_set || must.one_set_for_heads, must.equal_counts);
  compare(together_over::layers, stages::says_one_set<decltype(p.layers)> || must.one_set_for_layers,
          must.equal_layers);
  return rows;
}

struct copy_score {
  score_rows from;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const { x = from.score(in, j); }
};

/// What selection ranks by one score, but for what the heads stage does: rows of tokens, or of pages. Where `apart` is
/// not null it holds the floats, and those of `rows` stay as the score left them.
template <class Context, class Policy, class Score, class Evidence>
score_rows ranked_rows(Context& ctx, frame& scratch, Policy const& p, Score const& score, Evidence const& e,
                       score_rows rows, float* apart = nullptr) {
  score(ctx, e, rows);
  set_padding(ctx, e, rows, 0);
  kernels::require_finite(ctx, rows);
  kernels::leave_faulty_out(ctx, rows);
  if (apart != nullptr) {
    score_rows const from = rows;
    rows.values = apart;
    kernels::each_token(ctx, rows, copy_score{from});
  }
  score_rows const tokens = rows;
  if constexpr (stages::says_whole_pages<decltype(p.select)>)
    rows = pages::score(ctx, scratch, rows, page_of(p, e.cache), p.select.reduce, e.sees);
  constexpr bool after = planning::after_scores<decltype(p.layers)>();
  bool const shared = Policy::budgets == sharing::heads || Policy::budgets == sharing::stack ||
                      (Policy::budgets == sharing::none && after && rows.layers > 1);
  unseen::leave_out(ctx, e, rows, shared);
  if constexpr (requires { p.layers.join(ctx, rows); }) p.layers.join(ctx, rows);
  if constexpr (after && Policy::budgets != sharing::cap) p.layers.divide(ctx, e, tokens, rows, Policy::budgets);
  return rows;
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
