// SPDX-License-Identifier: Apache-2.0
// Layer budgets that follow how widely the newest queries' attention spreads, and how much it changes.
#pragma once

#include <cmath>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/tail_window.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/window_fold.hpp>
#include <kvevict/layers/entropy.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace layers {

/// Each layer's share of the evictable budget is that of its preference: the entropy of the attention that the last W
/// queries pay, times its variance from query to query.
///
///   H_l = −Σ a·ln a,  V_l = Σ var_w a     over query heads and tokens j < N − recent;   a(w,j) of W rows, var ÷ W
///   P_l = H_l^(1/τ₁) · V_l^(1/τ₂);   B_l = P_l / Σ P · Σ (budget − protected) + protected
///
/// Units, exact sums and views of fewer layers are those of `entropy`; heads that are kept whole take no part, and
/// where no layer has a preference the budget is shared evenly. A view of one layer costs nothing.
///
/// Paper    CAKE, Qin et al., ICLR 2025, arXiv:2503.12491.   Differs: P_l is a whole number of 2⁻²⁰ of the largest one;
///          τ are 1 (the paper's differ from model to model); weights that agree up to rounding do not vary, see
///          kernels::variance_of; all layers of the view at once, see layers/arriving.hpp.
/// Shapes   queries (L,T,Hq,D) with T ≥ W rows or softmax rows, keys (L,H,N,D) → budgets (L), with a heads stage (L,H).
/// Cost     two windows' attention; scratch N floats a row, and fold_window's.
/// Errors   contract_violation: a τ that is not above 0, scattered rows; as score::window_attention.
struct dispersion {
  using stage = stages::layers;
  static constexpr bool after_scores = true;
  std::int32_t window = 32;
  float spread_root = 1;  // τ₁
  float change_root = 1;  // τ₂

  void validate() const {
    KVEVICT_EXPECTS(spread_root > 0 && change_root > 0, "dispersion: roots of ", spread_root, " and ", change_root,
                    "; give numbers above 0, 1 for none");
  }
  constexpr std::int32_t operator()(layer_query const& q) const { return q.tokens_per_head; }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.rows() * s.tokens * 4) + scratch_step(2 * s.rows() * 4) + scratch_step(s.sequences * 4) +
           scratch_step(s.sequences * 8) + scratch_step(s.rows() * listed_parts::integers * 8) +
           kernels::fold_window.bytes(ctx, s, options(), of_window{});
  }

  /// `tokens` were scored; `rows` are they, or their pages.
  template <class Context, class Evidence>
  void divide(Context& ctx, Evidence const& e, score_rows const& tokens, score_rows& rows, sharing share) const {
    static_assert(has_attention<Evidence>,
                  "dispersion: the evidence has no queries and no softmax rows; use prompt(cache, queries)");
    if (rows.layers == 1) return;
    contract::expect_tail_window("dispersion", tokens);
    frame scratch(ctx.scratch());
    score_rows apart = tokens;  // its scores are still needed
    apart.values = scratch.template allocate<float>(tokens.total_floats);
    auto* sums = scratch.template allocate<float>(2 * rows.count());          // (2, B·H)
    auto* preferences = scratch.template allocate<float>(rows.sequences);     // (L·S)
    auto* weights = scratch.template allocate<std::int64_t>(rows.sequences);  // (L·S)
    auto* integers = scratch.template allocate<std::int64_t>(rows.count() * listed_parts::integers);
    for (std::int32_t change = 0; change < 2; ++change) {
      kernels::fold_window(ctx, e.cache, e.attention, options(), of_window{change != 0}, apart);
      kernels::row_sums(ctx, apart, token_groups{}, 1, before_recent{apart}, sums + change * rows.count());
    }
    row_pools const pools(rows, pool_over::layers);
    kernels::each_sequence(ctx, rows, prefer{spread_root, change_root, rows.count(), sums, preferences});
    kernels::each_sequence(ctx, rows, weigh{pools.count, rows.layers, preferences, weights});
    kernels::each_sequence(ctx, rows, entropy::division{rows, pools, share, weights, integers});
  }

  /// Of a token under all window rows: −Σ a·ln a, or the variance.
  struct of_window : kernels::fold_by_sums<2> {
    bool change = false;

    constexpr explicit of_window(bool which = false) : change(which) {}
    constexpr bool reads_outputs() const { return false; }
    KVEVICT_HOST_DEVICE void add(kernels::window_weight const& x, float (&to)[sums]) const {
      if (change)
        to[0] += x.weight, to[1] += x.weight * x.weight;
      else
        to[0] -= x.weight * ::logf(x.weight);
    }
    KVEVICT_HOST_DEVICE float finish(float const (&of)[sums], std::int32_t rows) const {
      return change ? kernels::variance_of(of[0], of[1], rows) : of[0];
    }
  };
  struct prefer {
    float spread_root, change_root;
    std::int64_t count;
    float const* sums;
    float* preferences;

    KVEVICT_HOST_DEVICE void operator()(slice<row> of, std::int64_t b) const {
      float spread = 0, change = 0;
      for (std::int64_t h = 0; h < of.size; ++h)
        if (of[h].active) spread += sums[b * of.size + h], change += sums[count + b * of.size + h];
      bool const some = spread > 0 && change > 0;
      preferences[b] = some ? ::powf(spread, 1 / spread_root) * ::powf(change, 1 / change_root) : 0.0f;
    }
  };
  /// Of the first layer's sequences, each in all layers.
  struct weigh {
    std::int64_t sequences, layers;
    float const* preferences;
    std::int64_t* weights;

    constexpr void operator()(slice<row>, std::int64_t b) const {
      if (b >= sequences) return;
      float most = 0;
      for (std::int64_t l = 0; l < layers; ++l)
        if (float const x = preferences[l * sequences + b]; x > most) most = x;
      for (std::int64_t l = 0; l < layers; ++l) {
        float const part = most > 0 ? preferences[l * sequences + b] / most : 0.0f;
        weights[l * sequences + b] = part > 0 && part <= 1 ? static_cast<std::int64_t>(part * 0x1p20f + 0.5f) : 0;
      }
    }
  };

 private:
  constexpr window_options options() const { return {.rows = window, .group = group_reduce::sum}; }
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
