// SPDX-License-Identifier: Apache-2.0
// Any score, less how much a token's key resembles the others.
#pragma once

#include <algorithm>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/multiply_add.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/score/key_diversity.hpp>
#include <kvevict/score/within_groups.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The inner score, less the token's share of the head's redundancy: of tokens that say the same, as text of reasoning
/// has many, few stay.
///
///   ŝ(h,j) = λ·s(h,j) − (1−λ)·softmax_n( r_n )[j],   r_j = 1/N·Σ_{i≠j} cos(k_i, k_j) = ( k̂_j·Σ_i k̂_i − 1 ) / N
///
/// Paper    R-KV, Cai et al. 2025, arXiv:2505.24133.   Differs: theirs takes the last entry above 0.5 out of each row
///          of the N×N cosines, so that the newest of equal tokens is not redundant; without that rule their mean is
///          one product with the sum of directions, exactly. A key of zero has r 0.
/// Shapes   keys (H,N,D), floats or quantised → scores (H,N).
/// Cost     the inner score's, two reads of K; scratch N + D floats a row and what direction_sums takes, never N×N.
/// Errors   contract_violation if the cache has no keys that can be read, λ is not in [0,1]; the inner score's.
template <class Inner> struct less_redundant {
  Inner inner;
  float lambda = 0.07f;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("less_redundant", e);
    KVEVICT_EXPECTS(lambda >= 0 && lambda <= 1, "less_redundant: lambda is ", lambda, "; give a share, 0 to 1");
    component const& k = readable("less_redundant", e.cache, role::k);
    inner(ctx, e, out);
    frame scratch(ctx.scratch());
    score_rows alike = out;  // the same rows
    alike.values = scratch.template allocate<float>(out.total_floats);
    with_elements(e.cache, k, [&](auto const& keys) {
      frame of_sums(ctx.scratch());
      float* const sums = of_sums.template allocate<float>(out.count() * keys.of.width());  // (B·H, D)
      kernels::direction_sums(ctx, alike, keys, sums);
      kernels::row_products(ctx, alike, keys, sums, less_itself{});
    });
    kernels::each_token(ctx, alike, divide{});
    softmax_within(ctx, token_groups{}, alike);
    kernels::each_token(ctx, out, mix{alike, lambda});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t of_inner = 0;
    if constexpr (requires { inner.workspace_bytes(ctx, s); }) of_inner = inner.workspace_bytes(ctx, s);
    std::int64_t const of_sums = scratch_step(s.rows() * s.head_dim * 4) +
                                 std::max(kernels::direction_sums.bytes(ctx, s), kernels::row_products.bytes(ctx, s));
    return std::max(of_inner,
                    scratch_step(s.rows() * s.tokens * 4) + std::max(of_sums, softmax_within_bytes(s.rows())));
  }

  /// From the inverse of a length to N·r.
  struct less_itself {
    KVEVICT_HOST_DEVICE void operator()(float product, float& x) const { x = product * x - (x == 0 ? 0.0f : 1.0f); }
  };
  struct divide {
    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t, float& x) const {
      x /= static_cast<float>(in.tokens);
    }
  };
  struct mix {
    score_rows alike;
    float lambda;
    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      x = multiply_add(lambda, x, (lambda - 1) * alike.score(in, j));
    }
  };
};
template <class Inner> less_redundant(Inner, float) -> less_redundant<Inner>;
template <class Inner> less_redundant(Inner) -> less_redundant<Inner>;

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
