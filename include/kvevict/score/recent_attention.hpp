// SPDX-License-Identifier: Apache-2.0
// Attention of the newest rows, each scaled to the entropy that the budget can hold.
#pragma once

#include <algorithm>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Attention that the last r rows pay to each token, with AhaKV's step-gain softmax, summed: every evictable token has
/// r terms.
///
///   S(h,j) = Σ_{i=N−r+1..N} 1/G·Σ_g softmax_n( g_i·z(h·G+g, i, n) )[j],   g_i = √(2 ln(i/k)), i = position + 1, k =
///   the row's budget
///
/// Paper    AhaKV, Gu et al. 2025, arXiv:2506.03762.   Differs: a row with g_i below `min_gain` takes it (0: uniform
///          weights); exactly r terms (the printed sum has r+1); while decoding i is the absolute position, not the
///          cached count. `weighting::softmax` is the ablation without step gain.
/// Shapes   as window_attention → (H,N) float, Σ_j S = r. While decoding `observe` keeps a ring of the last r rows in
///          the cache's role::state component, r floats a slot, column = position mod r.
/// Cost     as window_attention without LSE; observe() the same for all its rows together, with scratch for min(r, new
///          rows) floats a token, at most as much as the state of the layer; a step: one row; reading the ring back:
///          r·N adds.
/// Errors   contract_violation if a sequence provides fewer than min(r,N) rows; if rows are scattered and a
///          prompt's r rows carry no positions; if min_gain is negative or not finite.
struct recent_attention {
  std::int32_t rows = 32;  // r
  weighting weights = weighting::step_gain;
  float min_gain = 0;
  group_reduce group = group_reduce::mean;

  constexpr std::int32_t state_floats() const { return rows; }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has_attention<Evidence> || has<Evidence, facts::state>,
                  "recent_attention: the evidence has no queries, no softmax "
                  "rows and no state; use prompt(cache, queries), or observe(...) and remembered(cache)");
    expect_gain();
    if constexpr (has<Evidence, facts::state>)
      kernels::sum_state(ctx, e.cache, *e.cache.find(role::state), out);
    else
      kernels::window_scores(ctx, e.cache, e.attention, window(rows), out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t const planes = scratch_step(s.rows() * s.tokens * std::min<std::int64_t>(rows, s.tokens) * 4);
    return std::max(kernels::window_scores.bytes(ctx, s, window(rows)),
                    planes + kernels::window_weights.bytes(ctx, s, window(rows)));
  }

  /// Writes the newest rows, at most r of them, into the ring; the tokens of all new rows start from zero.
  template <class Context, class Evidence>
  void observe(Context& ctx, Evidence const& e, component const& state, std::int32_t new_rows, score_rows& work) const {
    static_assert(has_attention<Evidence>,
                  "recent_attention: the evidence has no queries and no softmax rows; use step(cache, queries)");
    expect_gain();
    std::int32_t const last = std::min(new_rows, rows);
    frame scratch(ctx.scratch());
    score_rows each = work;  // the same rows, a plane for every row of attention
    each.values = scratch.template allocate<float>(work.total_floats * last);
    kernels::window_weights(ctx, e.cache, e.attention, window(last), each);  // raises here, before anything is written
    ring const columns{e.attention.places(), rows};
    kernels::update_state(ctx, e.cache, state,
                          update_options{state_update::assign, new_token_state::zeroed, columns, last}, each);
  }

 private:
  void expect_gain() const {
    KVEVICT_EXPECTS(min_gain >= 0 && min_gain < 1e9f, "recent_attention: a least gain of ", min_gain,
                    "; give 0 or more, a factor on logits");
  }
  constexpr window_options window(std::int32_t count) const {
    window_options options{count, row_reduce::sum, group, weights, min_gain};
    return options;
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
