// SPDX-License-Identifier: Apache-2.0
// Attention of the newest queries, and how much it changes from one to the next.
#pragma once

#include <algorithm>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/tail_window.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Mean of the attention that the last W queries pay to each token, and γ times its variance: tokens that some queries
/// need and others do not stay, too.
///
///   s(h,j) = 1/G·Σ_g ( mean_w a(g,w,j) + γ·var_w a(g,w,j) ),   variance ÷ W;   then pooled along the tokens
///
/// Paper    CAKE, Qin et al., ICLR 2025, arXiv:2503.12491: its score of tokens; its budgets of layers are
///          layers::dispersion.   Differs: the variance is divided by W, and γ is 200 (what we could read does not
///          say); a variance within rounding is 0, see kernels::variance_of.
/// Shapes   queries (T,Hq,D) with T ≥ W rows a sequence or softmax rows, keys (H,N,D) → scores (H,N) float.
/// Cost     window_attention's. Scratch on the host: N floats a query head.
/// Errors   as window_attention; contract_violation for a γ that is negative or not finite.
struct varying_attention {
  std::int32_t window = 32;
  float gamma = 200;
  pool_options pool{5, pooling::average};
  group_reduce group = group_reduce::mean;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has_attention<Evidence>,
                  "varying_attention: the evidence has no queries and no softmax rows; use prompt(cache, queries)");
    KVEVICT_EXPECTS(gamma >= 0 && gamma < 1e9f, "varying_attention: gamma is ", gamma,
                    "; give 0 or more, the paper's is 200");
    contract::expect_tail_window("varying_attention", out);
    kernels::fold_window(ctx, e.cache, e.attention, options(), moments{gamma}, out);
    kernels::pool(ctx, pool, out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return std::max(kernels::fold_window.bytes(ctx, s, options(), moments{gamma}), kernels::pool.bytes(ctx, s, pool));
  }

  struct moments : kernels::fold_by_sums<2> {
    float gamma;

    constexpr explicit moments(float of) : gamma(of) {}
    constexpr bool reads_outputs() const { return false; }
    KVEVICT_HOST_DEVICE void add(kernels::window_weight const& x, float (&to)[sums]) const {
      to[0] += x.weight, to[1] += x.weight * x.weight;
    }
    KVEVICT_HOST_DEVICE float finish(float const (&of)[sums], std::int32_t rows) const {
      return of[0] / static_cast<float>(rows < 1 ? 1 : rows) + gamma * kernels::variance_of(of[0], of[1], rows);
    }
  };

 private:
  constexpr window_options options() const { return {.rows = window, .group = group}; }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
