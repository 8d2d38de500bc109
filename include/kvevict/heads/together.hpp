// SPDX-License-Identifier: Apache-2.0
// One set of tokens for all KV heads of a sequence.
#pragma once

#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/together.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// All heads of a sequence keep the same tokens: those with the best score over all heads.
///
///   s(j) = 1/H · Σ_h s(h,j)          or the largest, or the sum;  every head keeps its budget's best by s
///
/// For caches that have one set for all heads: tables rewritten instead of moved, cells that all heads share, common
/// rows (MLA, positions). Heads must have the same tokens, which plan() checks by length and position component.
/// Shapes   scores (H,M) → the same scores in every row.
/// Cost     two reads and a write of the scores; no scratch.
/// Errors   contract_violation: heads of different lengths, positions or budgets; a sum that is not finite.
struct together {
  using stage = stages::heads;
  static constexpr bool equal_counts = true;
  static constexpr bool one_set = true;
  group_reduce reduce = group_reduce::mean;

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::require_finite.bytes(ctx, s);
  }
  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    kernels::join_scores(ctx, rows, together_over::heads, reduce);
  }
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
