// SPDX-License-Identifier: Apache-2.0
// How much of a key the other keys of its head cannot make up.
#pragma once

#include <algorithm>

#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>
#include <kvevict/score/keys.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Ridge leverage of a token's key among the keys of its head: near 1 where no other key points there, near D/N where
/// many do.
///
///   X = K − mean of K;   s(h,j) = x_jᵀ (XᵀX + λ·(trace XᵀX/D)·I)⁻¹ x_j        over all N tokens of the head
///
/// 0 ≤ s ≤ 1 and Σ_j s ≤ D. With λ = 0, and N well above D, no invertible linear map of the keys changes it; channels
/// that the earlier ones make up count once. Scores of different heads have about the same sum, so heads::adaptive has
/// little to follow.
/// Paper    Compactor, 2025, arXiv:2507.08143, its outlier part.   Differs: exact where theirs sketches the keys by 48
///          random directions; λ is relative to the mean eigenvalue.
/// Shapes   keys (H,N,D), D ≤ 256, floats or quantised → (H,N) float. Needs no queries; rows may be scattered.
/// Cost     three reads of K, of unrotated keys with one cosine and sine an element; 2·N·D² + D³/3 flop a row; scratch
///          12·D² + 4·D bytes a row.
/// Errors   contract_violation: D above 256, a negative λ, no keys that can be read, one that is not finite; of
///          unrotated keys: see before_rotation.
struct leverage {
  float ridge = 0.01f;  // λ
  keys of = keys::unrotated;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("leverage", e);
    KVEVICT_EXPECTS(ridge >= 0 && ridge < 1e9f, "leverage: a ridge of ", ridge,
                    " mean eigenvalues; give 0 or more, such as 0.01");
    with_keys("leverage", of, ctx, e, [&](auto const& k) {
      auto const D = static_cast<std::int32_t>(k.of.width());
      kernels::expect_matrix("leverage", D);
      frame scratch(ctx.scratch());
      std::int64_t const rows = out.count(), size = std::int64_t{D} * D;
      auto* const products = scratch.template allocate<double>(rows * size);
      float *const map = scratch.template allocate<float>(rows * size), *const means =
                                                                            scratch.template allocate<float>(rows * D);
      kernels::row_sums(ctx, out, token_groups{}, D, k, means);
      kernels::each_row(ctx, out, divide{means, D});
      centred<std::decay_t<decltype(k)>> const x{k, out, means, D};
      kernels::gram(ctx, out, D, x, products);
      kernels::inverse_cholesky(ctx, out, D, kernels::cholesky_options{static_cast<double>(ridge)}, products, map);
      kernels::mapped_sums(ctx, out, kernels::lower_map{map, D}, x);
    });
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t const D = s.head_dim;
    return scratch_step(s.rows() * D * D * 8) + scratch_step(s.rows() * D * D * 4) + scratch_step(s.rows() * D * 4) +
           std::max(kernels::gram.bytes(ctx, s), kernels::mapped_sums.bytes(ctx, s)) + keys_bytes(of, s);
  }

  /// Sums become means.
  struct divide {
    float* sums;
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t r) const {
      for (std::int32_t d = 0; d < width; ++d) sums[r * width + d] /= static_cast<float>(in.tokens);
    }
  };
  template <class Keys> struct centred {
    Keys keys;
    score_rows rows;
    float const* means;  // (B·H, D)
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first,
                                        float (&x)[row_chunk]) const {
      keys(in, j, first, x);
      float const* const mean = means + rows.index_of(in) * width;
      for (std::int32_t i = 0; i < row_chunk && first + i < width; ++i) x[i] -= mean[first + i];
    }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
