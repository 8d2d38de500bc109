// SPDX-License-Identifier: Apache-2.0
// How unevenly the channels of a token lie in the range of the tokens that follow it.
#pragma once

#include <algorithm>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/score/within_groups.hpp>
#include <kvevict/score/without_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// What the tokens of different partitions are compared by: their rank within their own, or their share of its softmax.
enum class partition_score : std::uint8_t { rank, share };

/// Spread of a token's channels, each relative to its range over the next partition, in K and in V.
///
///   partition p = tokens [sinks + p·lag, sinks + (p+1)·lag);   x̂_c = (x_c − min_c) / (max_c − min_c), min and max
///   over the tokens of p+1;   σ_j = standard deviation of x̂ over the D channels (÷ D−1);   u = ½·softmax_p(σ of K)
///   + ½·softmax_p(σ of V);   s(h,j) = tokens of p with a lower u, ÷ lag; or u itself
///
/// Tokens before the first partition, in the last whole one and behind it have nothing to be compared with: s = 1.
/// Paper    LagKV, Liang et al. 2025, arXiv:2504.04704.   Differs: a channel that is constant over p+1 counts as 0
///          (theirs divides by zero); of equal u the later token ranks higher.
/// Shapes   keys (H,N,D), values (H,N,D'), floats or quantised → (H,N) float in [0,1]. Needs no queries.
/// Cost     one read of K and of V where two partitions fit into the second-level cache, and for ranks N·lag
///          comparisons; scratch N·(1 + 2/lag) floats a row, and what channel_spreads takes.
/// Errors   contract_violation if K or V is missing or no numbers, lag < 1, sinks < 0, or rows are scattered.
struct relative_spread {
  std::int32_t sinks = 4, lag = 128;
  partition_score scores = partition_score::rank;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("relative_spread", e);
    KVEVICT_EXPECTS(lag >= 1 && sinks >= 0, "relative_spread: partitions of ", lag, " tokens behind ", sinks,
                    " sinks; give 1 or more, behind 0 or more");
    KVEVICT_EXPECTS(out.positions == nullptr,
                    "relative_spread: the rows are scattered, so the tokens that follow in memory are not those that "
                    "follow in the text; use stable compaction (compaction::stable)");
    component const &k = readable("relative_spread", e.cache, role::k),
                    &v = readable("relative_spread", e.cache, role::v);
    frame scratch(ctx.scratch());
    score_rows work = out;  // the same rows
    work.values = scratch.template allocate<float>(out.total_floats);
    kernels::each_token(ctx, out, none::zero{});
    for (component const* const c : {&k, &v})
      with_elements(e.cache, *c, [&](auto const& elements) { add_shares(ctx, elements, work, out); });
    if (scores == partition_score::rank) rank_within(ctx, partitions(), out, work);
    kernels::each_token(ctx, out, finish{partitions(), scores == partition_score::rank ? work : out});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.rows() * s.tokens * 4) +
           std::max(kernels::channel_spreads.bytes(ctx, s),
                    softmax_within_bytes(s.rows() * partitions().count(s.tokens)));
  }

  constexpr token_groups partitions() const { return {sinks, lag}; }
  struct add_half {
    score_rows of;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const { x += 0.5f * of.score(in, j); }
  };
  struct finish {
    token_groups partitions;
    score_rows of;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const {
      bool const followed = j >= partitions.first && partitions.is_followed(partitions.group_of(j), in.tokens);
      x = followed ? of.score(in, j) : 1.0f;
    }
  };

 private:
  /// Half of each token's share of its partition's softmax of σ.
  template <class Context, class Elements>
  void add_shares(Context& ctx, Elements const& elements, score_rows& work, score_rows& out) const {
    kernels::each_token(ctx, work, none::zero{});
    kernels::channel_spreads(ctx, work, partitions(), elements);
    softmax_within(ctx, partitions(), work);
    kernels::each_token(ctx, out, add_half{work});
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
