// SPDX-License-Identifier: Apache-2.0
// One set of tokens for all layers of a sequence.
#pragma once

#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/together.hpp>
#include <kvevict/layers/layers.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace layers {

/// All layers of a sequence keep the same tokens of a head: those with the best score over all layers. With
/// heads::together one set serves all heads and layers.
///
///   s(h,j) = 1/L · Σ_l s(l,h,j)      or the largest, or the sum;  every layer keeps the budget's best by s
///
/// For caches whose layers share their cells (llama.cpp) or a table that is rewritten.
/// Shapes   a stack of all layers of the model: scores (L,H,M) → the same scores in every layer.
/// Cost     two reads and a write of the scores; no scratch.
/// Errors   contract_violation: a view of fewer layers than budget.layer_count; layers of different lengths, positions,
///          budgets or read-only prefixes; a sum that is not finite.
struct together {
  using stage = stages::layers;
  static constexpr bool equal_budgets = true;
  static constexpr bool one_set = true;
  group_reduce reduce = group_reduce::mean;

  constexpr std::int32_t operator()(layer_query const& q) const { return q.tokens_per_head; }

  /// plan() calls it between score and heads.
  template <class Context> void join(Context& ctx, score_rows& rows) const {
    kernels::join_scores(ctx, rows, together_over::layers, reduce);
  }
  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::require_finite.bytes(ctx, s);
  }
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
