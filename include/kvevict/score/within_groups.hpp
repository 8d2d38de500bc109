// SPDX-License-Identifier: Apache-2.0
// Scores of tokens made relative to those of their group: softmax and rank.
#pragma once

#include <cmath>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

namespace within_groups {

struct exponential {
  token_groups groups;
  score_rows rows;
  float const* peaks;  // (B·H, G)
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
    if (j >= groups.first) x = ::expf(x - peaks[groups.place(rows, in, j)]);
  }
};
struct share {
  token_groups groups;
  score_rows rows;
  float const* sums;  // (B·H, G)
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
    if (j >= groups.first) x /= sums[groups.place(rows, in, j)];
  }
};
struct rank {
  token_groups groups;
  score_rows of;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    if (j < groups.first) return;
    std::int64_t const g = groups.group_of(j), first = groups.begin(g), last = groups.end(g, in.tokens);
    float const* const u = of.values + of.begin[of.index_of(in)];
    std::int32_t lower = 0;
    for (std::int64_t i = first; i < last; ++i) lower += u[i] < u[j] || (u[i] == u[j] && i < j) ? 1 : 0;
    // what is not a number has no rank, and stays so
    x = u[j] != u[j] ? u[j] : static_cast<float>(lower) / static_cast<float>(last - first);
  }
};

}  // namespace within_groups

/// x_j ← exp(x_j − max) / Σ exp(x − max) over the group of token j, for the tokens of active rows from groups.first on.
/// Shapes   scores (H,N), finite → (H,N) in [0,1]. Scratch: softmax_within_bytes(groups of all rows).
template <class Context> void softmax_within(Context& ctx, token_groups const& groups, score_rows const& rows) {
  std::int64_t const count = rows.count() * groups.count(rows.most_tokens);
  frame scratch(ctx.scratch());
  float *const peaks = scratch.template allocate<float>(count), *const sums = scratch.template allocate<float>(count);
  kernels::row_max(ctx, rows, groups, 1, row_scores{rows}, peaks);
  kernels::each_token(ctx, rows, within_groups::exponential{groups, rows, peaks});
  kernels::row_sums(ctx, rows, groups, 1, row_scores{rows}, sums);
  kernels::each_token(ctx, rows, within_groups::share{groups, rows, sums});
}
constexpr std::int64_t softmax_within_bytes(std::int64_t groups) { return 2 * scratch_step(groups * 4); }

/// to_j ← tokens of j's group that `of` puts below token j (the earlier of equal ones is), ÷ tokens of the group.
/// Shapes   scores (H,N) → (H,N) in [0,1), in other memory; NaN stays NaN. Cost N·size comparisons.
template <class Context>
void rank_within(Context& ctx, token_groups const& groups, score_rows const& of, score_rows const& to) {
  kernels::each_token(ctx, to, within_groups::rank{groups, of});
}

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
