// SPDX-License-Identifier: Apache-2.0
// How unevenly the channels of a token lie in the range of the tokens that follow it.
#pragma once

#include <algorithm>
#include <cmath>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// What the tokens of different partitions are compared by: their rank within their own, or their share of its softmax.
enum class partition_score : std::uint8_t { rank, share };

/// Spread of a token's channels, each relative to its range over the next partition, in K and in V.
///
///   partition p = tokens [sinks + p·lag, sinks + (p+1)·lag);   x̂_c = (x_c − min_c) / (max_c − min_c), min and max over
///   the tokens of p+1;   σ_j = standard deviation of x̂ over the D channels (÷ D−1);   u = ½·softmax_p(σ of K) +
///   ½·softmax_p(σ of V);   s(h,j) = tokens of p with a lower u, ÷ lag — or u itself
///
/// Tokens before the first partition, in the last whole one and behind it have nothing to be compared with: s = 1.
/// Paper    LagKV, Liang et al. 2025, arXiv:2504.04704.   Differs: a channel that is constant over p+1 counts as 0
///          (theirs divides by zero); of equal u the later token ranks higher.
/// Shapes   keys (H,N,D), values (H,N,D') in f32, f16 or bf16 → (H,N) float in [0,1]. Needs no queries.
/// Cost     three reads of K and of V, and for ranks N·lag comparisons; scratch N·(1 + 2·D/lag) floats a row.
/// Errors   contract_violation if K or V is missing or not floating, lag < 1, sinks < 0, or rows are scattered.
struct relative_spread {
  std::int32_t sinks = 4, lag = 128;
  partition_score scores = partition_score::rank;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    KVEVICT_EXPECTS(lag >= 1 && sinks >= 0, "relative_spread: partitions of ", lag, " tokens behind ", sinks,
                    " sinks; give 1 or more, behind 0 or more");
    KVEVICT_EXPECTS(out.positions == nullptr,
                    "relative_spread: the rows are scattered, so the tokens that follow in memory are not those that "
                    "follow in the text; use stable compaction (compaction::stable)");
    component const &k = readable("relative_spread", e.cache, role::k),
                    &v = readable("relative_spread", e.cache, role::v);
    frame scratch(ctx.scratch());
    score_rows work = out;  // the same rows
    work.values = scratch.template take<float>(out.total_floats);
    kernels::each_token(ctx, out, start{{partitions(), out}});
    add_shares(ctx, row_elements{e.cache, k}, work, out);
    add_shares(ctx, row_elements{e.cache, v}, work, out);
    if (scores == partition_score::share) return;
    kernels::each_token(ctx, work, copy{out});
    kernels::each_token(ctx, out, rank{{partitions(), work}});
  }

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    std::int64_t const groups = s.rows() * partitions().count(s.tokens);
    return scratch_step(s.rows() * s.tokens * 4) + 2 * scratch_step(groups * s.head_dim * 4) +
           2 * scratch_step(groups * 4);
  }

  constexpr token_groups partitions() const { return {sinks, lag}; }

  /// Scores of rows that are cut into partitions.
  struct partitioned {
    token_groups groups;
    score_rows rows;

    /// A whole partition follows on that of token j.
    constexpr bool is_followed(row const& in, std::int64_t j) const {
      return j >= groups.first && groups.begin(groups.group_of(j) + 2) <= in.tokens;
    }
    /// Of the partition of token j, or one behind it, among those of all rows.
    constexpr std::int64_t place(row const& in, std::int64_t j, std::int64_t behind = 0) const {
      return rows.index_of(in) * groups.count(rows.most_tokens) + groups.group_of(j) + behind;
    }
  };
  struct start {
    partitioned of;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const {
      x = of.is_followed(in, j) ? 0.0f : 1.0f;
    }
  };
  /// σ of a token; 0 where nothing follows.
  template <class Elements> struct deviation {
    partitioned of;
    Elements elements;
    float const *low, *high;  // (B·H, G, D)
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      x = 0;
      if (!of.is_followed(in, j)) return;
      float sum = 0, squares = 0;
      std::int64_t const next = of.place(in, j, 1) * width;
      for (std::int32_t first = 0; first < width; first += row_chunk) {
        float e[row_chunk];
        elements(in, j, first, e);
        for (std::int32_t d = first; d < width && d < first + row_chunk; ++d) {
          float const range = high[next + d] - low[next + d];
          // around ½, where most of them lie, so that squares lose little
          float const y = (range == 0 ? 0.0f : (e[d - first] - low[next + d]) / range) - 0.5f;
          sum += y, squares += y * y;
        }
      }
      auto const n = static_cast<float>(width);
      float const variance = (squares - sum * sum / n) / (n > 1 ? n - 1 : 1.0f);
      x = std::sqrt(variance < 0 ? 0.0f : variance);
    }
  };
  struct value {
    score_rows of;
    constexpr float operator()(row const& in, std::int64_t j) const { return of.score(in, j); }
  };
  struct exponential {
    partitioned of;
    float const* peaks;  // (B·H, G)
    KVEVICT_HOST_DEVICE float operator()(row const& in, std::int64_t j) const {
      return std::exp(of.rows.score(in, j) - peaks[of.place(in, j)]);
    }
  };
  struct add_share {
    exponential of;
    float const* sums;  // (B·H, G)
    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      if (of.of.is_followed(in, j)) x += 0.5f * (of(in, j) / sums[of.of.place(in, j)]);
    }
  };
  struct copy {
    score_rows from;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const { x = from.score(in, j); }
  };
  struct rank {
    partitioned of;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const {
      if (!of.is_followed(in, j)) return;
      std::int64_t const g = of.groups.group_of(j), first = of.groups.begin(g), last = of.groups.begin(g + 1);
      float const* const u = of.rows.values + of.rows.begin[of.rows.index_of(in)];
      if (u[j] - u[j] != 0) return;  // not finite: stays to be refused
      std::int32_t lower = 0;
      for (std::int64_t i = first; i < last; ++i) lower += u[i] < u[j] || (u[i] == u[j] && i < j) ? 1 : 0;
      x = static_cast<float>(lower) / static_cast<float>(of.groups.size);
    }
  };

 private:
  /// Half of each token's share of its partition's softmax of σ.
  template <class Context, class Elements>
  void add_shares(Context& ctx, Elements const& elements, score_rows& work, score_rows& out) const {
    partitioned const of{partitions(), work};
    std::int64_t const groups = out.count() * of.groups.count(out.most_tokens);
    auto const D = static_cast<std::int32_t>(elements.of.width());
    frame scratch(ctx.scratch());
    float *const low = scratch.template take<float>(groups * D), *const high = scratch.template take<float>(groups * D);
    float *const peaks = scratch.template take<float>(groups), *const sums = scratch.template take<float>(groups);
    kernels::row_min(ctx, out, of.groups, D, elements, low);
    kernels::row_max(ctx, out, of.groups, D, elements, high);
    kernels::each_token(ctx, work, deviation<Elements>{of, elements, low, high, D});
    kernels::row_max(ctx, work, of.groups, 1, value{work}, peaks);
    kernels::row_sums(ctx, work, of.groups, 1, exponential{of, peaks}, sums);
    kernels::each_token(ctx, out, add_share{{of, peaks}, sums});
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
