// SPDX-License-Identifier: Apache-2.0
// A policy of several scores: its stages run for every share in turn.
#pragma once

#include <type_traits>
#include <utility>

#include <kvevict/evidence/scored_rows.hpp>
#include <kvevict/score/shares.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The score, or the first of several.
template <class Score> constexpr auto const& first_of(Score const& score) {
  if constexpr (is_shares<Score>)
    return score.template at<0>().score;
  else
    return score;
}
/// Whether each score can be called so.
template <class Score, class Context, class Evidence>
inline constexpr bool all_for = stage_for<Score, Context, Evidence>;
template <class... Shares, class Context, class Evidence>
inline constexpr bool all_for<shares<Shares...>, Context, Evidence> =
    (stage_for<decltype(Shares::score), Context, Evidence> && ...);

/// The heads stage of a share in a policy that has that one.
template <class Share, class Heads> constexpr auto const& heads_of(Share const& share, Heads const& of_policy) {
  if constexpr (std::is_same_v<std::remove_cvref_t<decltype(share.heads)>, heads_of_policy>)
    return of_policy;
  else
    return share.heads;
}

/// What is true of the heads stages that a policy with that score runs.
template <class Score, class Heads> struct heads_traits {
  static constexpr bool equal_counts = Heads::equal_counts, one_set = stages::says_one_set<Heads>,
                        differs_by_layer = stages::says_differs_by_layer<Heads>;
  static constexpr sharing budgets = planning::sharing_of<Heads>();
};
template <class... Shares, class Heads> struct heads_traits<shares<Shares...>, Heads> {
  template <class Share>
  using of = std::remove_cvref_t<decltype(heads_of(std::declval<Share const&>(), std::declval<Heads const&>()))>;
  template <sharing What> static constexpr bool any = ((planning::sharing_of<of<Shares>>() == What) || ...);
  static_assert(!any<sharing::cap>,
                "policy: heads::threshold makes the budget a cap, of which there are no shares; give another heads "
                "stage, or one score");
  static constexpr bool equal_counts = (of<Shares>::equal_counts && ...),
                        differs_by_layer = (stages::says_differs_by_layer<of<Shares>> || ...);
  static constexpr bool one_set = (stages::says_one_set<of<Shares>> && ...);
  static_assert(one_set || !(stages::says_one_set<of<Shares>> || ...),
                "policy: some shares keep one set for all heads, some do not; give heads::together to all, or to none");
  static constexpr sharing budgets = any<sharing::stack>   ? sharing::stack
                                     : any<sharing::heads> ? sharing::heads
                                                           : sharing::none;
};

}  // namespace score

namespace planning {

/// Every share in turn; what it keeps is no candidate of the next.
template <class Context, class Policy, class Evidence, class KeepSet>
void plan_shares(Context& ctx, Policy const& p, Evidence const& e, score_rows const& rows, KeepSet& out) {
  frame scratch(ctx.scratch());
  turns const all(scratch, rows, p.score.in_thousandths(), p.score.any_refines);
  bool const within = !p.equal_counts && p.score.divided() == score::heads_divide::whole_budget;
  if constexpr (requires { p.heads.all_reduce; })
    KVEVICT_EXPECTS(within,
                    "plan: a heads stage that divides the budget of several processes knows no shares of it; "
                    "let it divide the whole, shares{…}.dividing(heads_divide::whole_budget)");
  constexpr pool_over over = Policy::budgets == sharing::stack ? pool_over::layers : pool_over::heads;
  std::int32_t turn = 0;
  p.score.each([&](auto const& share) {
    frame of_turn(ctx.scratch());
    score_rows const ranked = contract::ranked_rows(ctx, of_turn, p, share.score, e, rows, all.apart);
    if (turn == 0) {
      score_rows whole = all.all(ctx, ranked);
      if (within) score::heads_of(share, p.heads)(ctx, whole);
    }
    score_rows now = all.next(ctx, ranked, turn, over, within || p.budgets == sharing::none);
    if (!within) score::heads_of(share, p.heads)(ctx, now);
    kernels::leave_faulty_out(ctx, now);
    p.select(ctx, now, out);
    if (++turn < all.shares.count) kernels::mark_kept(ctx, now, out, all.orders);
  });
}

/// From rows with their budgets to what stays of them: by one score, or by several in turn.
template <class Context, class Policy, class Evidence, class KeepSet>
void choose(Context& ctx, frame& scratch, Policy const& p, Evidence const& e, score_rows rows, KeepSet& out) {
  if constexpr (score::is_shares<decltype(p.score)>) {
    plan_shares(ctx, p, e, rows, out);
  } else {
    rows = contract::ranked_rows(ctx, scratch, p, p.score, e, rows);
    p.heads(ctx, rows);
    kernels::leave_faulty_out(ctx, rows);
    p.select(ctx, rows, out);
  }
}

/// What the first score ranks, in one set where the heads keep one.
template <class Context, class Policy, class Evidence>
score_rows first_ranked(Context& ctx, frame& scratch, Policy const& p, Evidence const& e, score_rows rows) {
  rows = contract::ranked_rows(ctx, scratch, p, score::first_of(p.score), e, rows);
  if constexpr (Policy::one_set && score::is_shares<decltype(p.score)>)
    score::heads_of(p.score.template at<0>(), p.heads)(ctx, rows);
  else if constexpr (Policy::one_set)
    p.heads(ctx, rows);
  return rows;
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
