// SPDX-License-Identifier: Apache-2.0
// The select stage that keeps neighbours together.
#pragma once

#include <kvevict/core/contract.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/select/best.hpp>
#include <kvevict/select/chunk_order.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace select {

/// Keeps chunks of `size` neighbouring tokens, the best ones by the mean of their tokens' scores; of the last chunk
/// that the budget reaches, the best tokens: so budgets are exact.
///
///   s(chunk) = 1/n · Σ_j s(j)        score descending, newer chunk first; within the cut chunk by s(j), newer first
///
/// Chunks begin at the row's first evictable token; the last one may be shorter. With heads::together the scores, and
/// so the chunks, are common to all heads. Tokens that no later row sees are in no mean and never kept.
/// With `peak` = m, of a chunk whose mean is not below the median and whose evenness H(p)/ln n is, p = s/Σs, only the m
/// best tokens count; when all chunks are taken, the rest of the budget goes to tokens by their own scores.
/// Paper    ChunkKV, Liu et al. 2025, arXiv:2502.00299; `peak`: EG-ChunkKV, kvpress pull request 263.   Differs: exact
///          budgets; chunks of evictable tokens alone; no index reuse over layers; log2 in whole numbers, no ε.
/// Shapes   scores (H,M) → slots.
/// Cost     size·M comparisons and select_best's of rows in no order; with `peak` 20·M whole-number products and two
///          medians. Scratch 8 bytes a token, with `peak` 16.
/// Errors   contract_violation: a size below 1; a peak that is not in [0, size); rows that are not in order of
///          position; a share behind another.
struct chunks {
  using stage = stages::select;
  std::int32_t size = 20;
  std::int32_t peak = 0;

  template <class Context, class KeepSet> void operator()(Context& ctx, score_rows const& rows, KeepSet& out) const {
    KVEVICT_EXPECTS(size >= 1 && peak >= 0 && peak < size, "select::chunks: chunks of ", size, " tokens, of which ",
                    peak,
                    " stay where they hold most of a score; give a size of 1 or more and a smaller peak, 0 for "
                    "none");
    KVEVICT_EXPECTS(
        rows.positions == nullptr,
        "select::chunks: tokens have no neighbours, as the rows are scattered or other shares have kept some; "
        "compact them stably (compaction::stable), use one score, or select::best");
    frame scratch(ctx.scratch());
    chunking const of{rows, size};
    score_rows order = rows;
    order.values = scratch.template allocate<float>(rows.total_floats);
    auto* const positions = scratch.template allocate<std::int32_t>(rows.total_floats);
    if (peak == 0) {
      kernels::each_token(ctx, order, write_order{of, order.values, positions, {}});
    } else {
      float const* kept = nullptr;
      peak_gate const gate = make_gate(ctx, scratch, of, kept);
      kernels::each_token(ctx, order, write_order{of, order.values, positions, gate, kept});
    }
    order.positions = positions;
    kernels::select_best(ctx, order, out);
  }
  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t const planes = (peak == 0 ? 2 : 4) * scratch_step(s.rows() * s.tokens * 4),
                       of_gate = 3 * scratch_step(s.rows() * 4) + scratch_step(s.rows() * std::int64_t{sizeof(row)});
    return planes + (peak == 0 ? 0 : of_gate) + kernels::select_best.bytes(ctx, s);
  }

 private:
  /// `kept`: tokens that chunks keep, (B·H).
  template <class Context>
  peak_gate make_gate(Context& ctx, frame& scratch, chunking const& of, float const*& kept) const {
    score_rows const& rows = of.tokens;
    score_rows plane = rows;
    plane.rows = scratch.template allocate<row>(rows.count());
    kernels::each_sequence(ctx, rows, keep_half{size, plane.rows});
    peak_gate out{peak, plane, plane};
    out.means.values = scratch.template allocate<float>(rows.total_floats);
    out.evenness.values = scratch.template allocate<float>(rows.total_floats);
    kernels::each_token(ctx, out.means, write_means{of});
    kernels::each_token(ctx, out.evenness, write_evenness{of});
    auto* const of_means = scratch.template allocate<float>(rows.count());
    auto* const of_evenness = scratch.template allocate<float>(rows.count());
    auto* const count = scratch.template allocate<float>(rows.count());
    kernels::cut_scores(ctx, out.means, of_means);
    kernels::cut_scores(ctx, out.evenness, of_evenness);
    out.of_means = of_means, out.of_evenness = of_evenness;
    kernels::row_sums(ctx, rows, token_groups{}, 1, count_kept{of, out}, count);
    kept = count;
    return out;
  }
};

}  // namespace select
}  // namespace KVEVICT_ABI
}  // namespace kvevict
