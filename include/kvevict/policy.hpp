// SPDX-License-Identifier: Apache-2.0
// A policy is a value made of stages; plan() runs them over a cache, of one layer or a stack, and returns what stays.
#pragma once

#include <vector>

#include <kvevict/evidence/calls.hpp>
#include <kvevict/evidence/checks.hpp>
#include <kvevict/evidence/expect_fit.hpp>
#include <kvevict/evidence/one_by_one.hpp>
#include <kvevict/evidence/plan_counts.hpp>
#include <kvevict/evidence/query_ring.hpp>
#include <kvevict/evidence/scored_rows.hpp>
#include <kvevict/evidence/workspace.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/layers/layers.hpp>
#include <kvevict/score/in_turn.hpp>
#include <kvevict/score/score.hpp>
#include <kvevict/select/best.hpp>
#include <kvevict/select/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// layers → protect → score → heads → select. An immutable value; `with(stage)` replaces the stage of that kind.
template <class Score, class Layers = layers::uniform, class Heads = heads::uniform, class Select = select::best>
struct policy {
  static_assert(score::stage<Score>,
                "policy: the score is no score; give a class with operator()(ctx, evidence, score_rows&) const, and no "
                "`stage` of another kind");
  static_assert(layers::stage<Layers>,
                "policy: the layers stage is none; it needs `using stage = stages::layers` and a constexpr "
                "operator()(layer_query const&) const that returns a budget, std::int32_t");
  static_assert(heads::stage<Heads>,
                "policy: the heads stage is none; it needs `using stage = stages::heads` and `static constexpr bool "
                "equal_counts`: whether all heads of a sequence keep equally many tokens; `capped`, if any, is such a "
                "bool, too");
  static_assert(select::stage<Select>, "policy: the select stage is none; it needs `using stage = stages::select`");

  Score score;
  kvevict::protect protect{};
  Layers layers{};
  Heads heads{};
  Select select{};

  /// The same policy with one stage replaced: `snapkv.with(heads::adaptive{})` is Ada-SnapKV.
  template <class Stage> constexpr auto with(Stage stage) const {
    using kind = stage_of<Stage>;
    static_assert(!std::is_same_v<kind, stages::score> || stages::callable<Stage>,
                  "with: this type is no stage; a score has operator()(ctx, evidence, score_rows&) const, any other "
                  "stage says of which kind it is: `using stage = stages::layers` (protect, heads, select)");
    static_assert(!std::is_same_v<kind, stages::protect> || std::is_same_v<Stage, kvevict::protect>,
                  "with: protect is not replaced by a type of your own; fill in a kvevict::protect");
    static_assert(stages::known<kind>,
                  "with: the type's `stage` is no kind of stage; give stages::layers, protect, score, heads or select");
    if constexpr (std::is_same_v<kind, stages::layers>)
      return policy<Score, Stage, Heads, Select>{score, protect, stage, heads, select};
    else if constexpr (std::is_same_v<kind, stages::protect>)
      return policy{score, stage, layers, heads, select};
    else if constexpr (std::is_same_v<kind, stages::heads>)
      return policy<Score, Layers, Stage, Select>{score, protect, layers, stage, select};
    else if constexpr (std::is_same_v<kind, stages::select>)
      return policy<Score, Layers, Heads, Stage>{score, protect, layers, heads, stage};
    else
      return policy<Stage, Layers, Heads, Select>{stage, protect, layers, heads, select};
  }

  /// True when every head of a sequence keeps the same number of tokens, so that a page table shared by all heads will
  /// do.
  static constexpr bool equal_counts = score::heads_traits<Score, Heads>::equal_counts;
  /// True when every head of a sequence keeps the same tokens, by its heads stage.
  static constexpr bool one_set = score::heads_traits<Score, Heads>::one_set;
  /// True when its heads stage divides each layer differently, whatever the scores are.
  static constexpr bool differs_by_layer = score::heads_traits<Score, Heads>::differs_by_layer;
  static constexpr sharing budgets = score::heads_traits<Score, Heads>::budgets;
  static_assert(!score::is_shares<Score> || !planning::after_scores<Layers>(),
                "policy: layers::entropy divides by the scores, of which there are several here; give a layers stage "
                "that does not look at them");
  static_assert(
      !stages::says_one_set<Layers> || !differs_by_layer,
      "policy: layers::together keeps one set for all layers, heads::table gives each another; leave one out");
  static_assert(budgets != sharing::stack || (stages::says_equal_budgets<Layers> && !stages::says_one_set<Layers>),
                "policy: a heads stage that divides over all layers takes the place of the layers stage; leave "
                "layers::uniform");
};
template <class Score> policy(Score) -> policy<Score>;
template <class Score> policy(Score, protect) -> policy<Score>;

namespace contract {

/// The policy's stages can be called as plan() does.
template <class Context, class Policy, class Evidence> constexpr void expect_stages() {
  static_assert(
      score::all_for<decltype(Policy::score), Context, Evidence>,
      "plan: the score does not take (Context&, Evidence const&, score_rows&) in a const call operator; is it "
      "a stage of another kind, and lacks `using stage = stages::heads`?");
  static_assert(heads::stage_for<decltype(Policy::heads), Context>,
                "plan: the heads stage does not take (Context&, score_rows&) in a const call operator");
  static_assert(select::stage_for<decltype(Policy::select), Context, keep_set_of<Context>>,
                "plan: the select stage does not take (Context&, score_rows const&, keep_set_of<Context>&) in a const "
                "call operator");
  if constexpr (stages::says_whole_pages<decltype(Policy::select)>)
    static_assert(
        select::reduces_pages<decltype(Policy::select)>,
        "plan: a select stage that says whole_pages is handed rows of pages; it needs a member `page_reduce reduce`, "
        "which says what a page's score is");
}

}  // namespace contract

namespace planning {

/// What plan() does once everything has been checked that can be before the rows are made.
template <class Context, class Policy, class Evidence>
void plan_checked(Context& ctx, Policy const& p, Evidence const& e, budget const& b, keep_set_of<Context>& out) {
  contract::expect_fit(ctx, e.cache, b, contract::keeps(p));
  frame scratch(ctx.scratch());
  choose(ctx, scratch, p, contract::without_whole(e, b), contract::budgeted_rows(ctx, scratch, p, e, b), out);
}

template <class Context, class Policy, class Evidence>
void observe_checked(Context& ctx, Policy const& p, Evidence const& e, budget const& b) {
  component const& state = contract::state_of("observe", e.cache, p.score.state_floats());
  frame scratch(ctx.scratch());
  score_rows rows = kernels::observe_rows(ctx, scratch, e, p.protect, p.layers, b);
  if (std::int32_t const most = kernels::new_rows(ctx, e); rows.count() != 0 && most != 0)
    p.score.observe(ctx, contract::without_whole(e, b), state, most, rows);
}

}  // namespace planning

/// What stays of every sequence and KV head: ascending slots of its row.
///
/// A unit within which stages move budget (a row; under a heads stage a layer's heads; under layers::pyramid a head's,
/// or all heads', layers) is kept whole and not scored where its tokens fit its budget; else it keeps exactly that
/// budget, and a row no more than it holds. Under a threshold every row is scored, and the budget is a cap.
/// Of rows that are cut no token stays that no later row sees (a sliding window, padding), unless it is protected, is
/// in a page that is kept, or evens out the heads of one table, or layers of one length. Rows that share the budget get
/// its place; else less stays.
/// Nothing is written, so sequences may have pages in common (forks, prefixes), said by read_only or not: each keeps a
/// set of its own. relocate() carries it out, or a mask or a table does; compact() refuses where it would write such a
/// page.
/// Shapes   evidence of B sequences × H heads → B·H rows, Σ kept = H·budget for every sequence that is cut (L·H·budget
///          over the layers).
/// Cost     the score's, and O(N) for the rest; scratch from ctx, `workspace_bytes` says how much; none after the first
///          call of a size.
/// Errors   contract_violation: unsound view or evidence, a policy whose keep sets the cache cannot follow
///          (capability), a budget of 0 or below the protected tokens, scores that are not finite. `out` is `refused`
///          then, whatever is thrown: it has no rows, and no verb takes it.
template <class Context, class Policy, class Evidence>
void plan(Context& ctx, Policy const& p, Evidence const& e, budget const& b, keep_set_of<Context>& out) {
  contract::expect_types<Context, Policy, Evidence>();
  contract::expect_stages<Context, Policy, Evidence>();
  auto call = contract::begin(ctx, e, b, out);
  contract::with_layers(e.cache, b, [&] {
    contract::validate("plan", ctx, p, e, b);
    planning::plan_checked(ctx, p, e, b, out);
  });
  call.done();
}

/// The same on the host without refusing all sequences for one: a sequence whose budget, rows or scores are at fault (a
/// NaN, an LSE of other logits, a prefix longer than its budget) is kept whole, and outcomes[b] says what is wrong with
/// it; where the layers of a stack keep one set of tokens, or as many, a fault in one of them is that of all. What is
/// wrong with the view, the options or where evidence lies still refuses the call.
/// Cost     plan()'s, once more for every sequence at fault. Without exceptions in the build a fault stops the program
///          as in plan().
template <class Policy, class Evidence>
void plan(host& ctx, Policy const& p, Evidence const& e, budget const& b, keep_set& out,
          std::vector<outcome>& outcomes) {
  contract::expect_types<host, Policy, Evidence>();
  contract::expect_stages<host, Policy, Evidence>();
  auto call = contract::begin(ctx, e, b, out);
  contract::with_layers(e.cache, b, [&] { contract::validate("plan", ctx, p, e, b); });
  capability const must = e.cache.demands();
  bool const as_one = stages::says_one_set<decltype(p.layers)> || must.one_set_for_layers || must.equal_layers;
  contract::leave_faulty_out(ctx, e, b, outcomes, as_one, [&](Evidence const& some, budget const& asked) {
    planning::plan_checked(ctx, p, some, asked, out);
  });
  call.done();
}

template <class Context, class Policy, class Evidence>
keep_set_of<Context> plan(Context& ctx, Policy const& p, Evidence const& e, budget const& b) {
  keep_set_of<Context> out;
  plan(ctx, p, e, b, out);
  return out;
}

/// The scores that plan() would rank, for inspection: rows as in keep_set, one float per token; rows that are kept
/// whole have zeros, and the floats of protected tokens mean nothing. Under select::pages one float per full page; of
/// score::shares the first one's.
/// Errors   contract_violation as plan(), before `values` is written.
template <class Context, class Policy, class Evidence>
void scores(Context& ctx, Policy const& p, Evidence const& e, budget const& b, std::vector<float>& values) {
  contract::expect_types<Context, Policy, Evidence>();
  contract::expect_stages<Context, Policy, Evidence>();
  auto call = contract::begin(ctx, e, b);
  contract::validate("plan", ctx, p, e, b);
  frame scratch(ctx.scratch());
  score_rows const rows = planning::first_ranked(ctx, scratch, p, contract::without_whole(e, b),
                                                 contract::budgeted_rows(ctx, scratch, p, e, b));
  kernels::read_scores(ctx, rows, values);
  call.done();
}

/// Folds the newest rows of attention into the cache's role::state component, which holds `state_floats(policy)` floats
/// per slot and moves with the tokens. A sequence provides a row of each of its newest tokens: of a prompt, a chunk,
/// one decoding step or several accepted tokens, or none, and its state stays as it is; every sequence's state gets the
/// bits that it would get alone. The budget is the one that plan() will be given.
/// A sequence begins with a row at position 0, or where all its tokens are new; whatever else comes before its rows has
/// been observed (step) or starts at zero (with_older), else it is refused: pages hold what another request left there.
/// Tokens behind a sequence's last row (drafts not yet accepted) are refused where the cache carries positions: which
/// tokens are new would have to be looked up in every head's row before anything is checked, on a device before its
/// rows can be made, while lengths that leave the drafts out say it for nothing. They are observed once accepted.
/// New are the newest tokens, as many as rows; where the cache carries positions, those from the first row's on: one
/// without a row is refused, and a row without a token, too, but of rows that are partial(): in a shard of a
/// context-parallel cache other processes hold most of them.
/// The read-only prefix is not written: its tokens are protected and need no score. What their state holds means
/// nothing; zero it in a copy that is to be evicted from.
/// Errors   contract_violation as plan(); a missing or too narrow state; more rows than tokens; several hidden states
///          of scattered rows. Nothing is written.
template <class Context, class Policy, class Evidence>
void observe(Context& ctx, Policy const& p, Evidence const& e, budget const& b) {
  static_assert(has_attention<Evidence> || has<Evidence, facts::features>,
                "observe: the evidence has no queries, no softmax rows and no "
                "hidden states; use step(cache, queries)");
  static_assert(
      requires { p.score.state_floats(); },
      "observe: this policy's score keeps no state; it can be planned from a prompt alone");
  contract::expect_types<Context, Policy, Evidence>();
  auto call = contract::begin(ctx, e, b, p);
  contract::with_layers(e.cache, b, [&] {
    contract::validate("observe", ctx, p, e, b, page_use::written);
    planning::observe_checked(ctx, p, e, b);
  });
  call.done();
}

/// The same on the host without refusing all sequences for one: the state of a sequence at fault stays as it is, and
/// outcomes[b] says what is wrong with it; see plan().
template <class Policy, class Evidence>
void observe(host& ctx, Policy const& p, Evidence const& e, budget const& b, std::vector<outcome>& outcomes) {
  static_assert(
      requires { p.score.state_floats(); },
      "observe: this policy's score keeps no state; it can be planned from a prompt alone");
  contract::expect_types<host, Policy, Evidence>();
  contract::with_layers(e.cache, b, [&] { contract::validate("observe", ctx, p, e, b, page_use::written); });
  contract::leave_faulty_out(ctx, e, b, outcomes, false, [&](Evidence const& some, budget const& asked) {
    planning::observe_checked(ctx, p, some, asked);
  });
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
