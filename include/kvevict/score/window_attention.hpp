// SPDX-License-Identifier: Apache-2.0
// Attention of the newest queries.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/tail_window.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Attention that the last W queries pay to each token, averaged over the window and the GQA group, then pooled along
/// the tokens.
///
///   s(h,j) = 1/(W·G) · Σ_{g,w} softmax_n( z(h·G+g, w, n) )[j]      causal inside the window;  then pool over [0, N−W)
///
/// Paper    SnapKV, Li et al., NeurIPS 2024, arXiv:2404.14469.   Differs: float softmax; reduced to KV heads before
///          pooling (`pool_before_group` pools each query head first, as kvpress does).
/// Shapes   queries (T,Hq,D) with T ≥ W rows a sequence, keys (H,N,D), both rotated → scores (H,N) float, in [0,1].
/// Cost     2·Hq·W·N·D flop; with LSE one pass over K, without one that keeps the W·G·N logits of a KV head while they
///          fit.
/// Errors   contract_violation if a sequence provides fewer than min(W,N) rows, if a row's weights do not add up to 1
///          (LSE of another base or scale), if rows are scattered; `pool_before_group` of softmax rows, which are
///          reduced first.
struct window_attention {
  std::int32_t window = 32;
  pool_options pool{7, pooling::max};
  group_reduce group = group_reduce::mean;
  pool_options pool_before_group{};

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has_attention<Evidence>,
                  "window_attention: the evidence has no queries and no softmax rows; use prompt(cache, queries)");
    contract::expect_tail_window("window_attention", out);
    kernels::window_scores(ctx, e.cache, e.attention, options(), out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::window_scores.bytes(ctx, s, options());
  }

 private:
  constexpr window_options options() const {
    window_options o{window, row_reduce::mean, group};
    o.pool_before_group = pool_before_group, o.pool = pool;
    return o;
  }
};

/// Attention that the T tokens which come after the cache will really pay to each token: the bound above every policy.
///
///   s(h,j) = 1/(T·G) · Σ_{g,t} a(h·G+g, t, j)      unpooled; a from the LSE over everything those tokens saw
///
/// Needs future(cache, queries).with_lse(…). Cost and errors as window_attention.
struct future_attention {
  std::int32_t rows = 32;  // T
  group_reduce group = group_reduce::mean;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has<Evidence, facts::future>,
                  "future_attention: the oracle needs the true future; use future(cache, queries).with_lse(...)");
    static_assert(
        has<Evidence, facts::lse>,
        "future_attention: later tokens also attend to each other, so their weights need the LSE; add .with_lse(...)");
    kernels::window_scores(ctx, e.cache, e.attention, options(), out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::window_scores.bytes(ctx, s, options());
  }

 private:
  constexpr window_options options() const {
    window_options o{rows, row_reduce::mean, group};
    o.place = row_place::behind_cache;
    return o;
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
