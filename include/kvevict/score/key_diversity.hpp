// SPDX-License-Identifier: Apache-2.0
// How far a key points away from what the keys of its head have in common.
#pragma once

#include <algorithm>

#include <kvevict/core/inverse_root.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/score/keys.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Minus the cosine between a key and the mean direction of the keys of its head: keys unlike the others stay.
///
///   s(h,j) = −cos( k_j, 1/N · Σ_n k_n/‖k_n‖ )      over all N tokens of the head; a key or mean of zero: 0
///
/// Rotation turns every key by its position, so that the mean of rotated keys cancels where pairs turn fast, and how
/// far a key is from it is a matter of position, too. Unrotated keys differ by what they say alone: their scores do not
/// change when all positions are shifted. They need evidence.with_rope.
/// Paper    KeyDiff, Park et al. 2025, arXiv:2504.15364.   Differs: nothing for the cached, rotated keys; ours for the
///          others.
/// Shapes   keys (H,N,D), floats or quantised → (H,N) float in [−1,1]. Needs no queries; rows may be scattered.
/// Cost     two reads of K, on the host the second from a cache where heads lie apart; of unrotated keys one cosine and
///          sine a pair and token in each, for all heads that have the token at the same position. Scratch: D floats a
///          row, and what direction_sums takes.
/// Errors   contract_violation if the cache has no keys that can be read, or a squared norm is not finite; of
///          unrotated keys: without rope, or if the component does not say what turned it, or something opaque did.
struct key_diversity {
  keys of = keys::cached;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("key_diversity", e);
    with_keys("key_diversity", of, ctx, e, [&](auto const& k) {
      auto const D = static_cast<std::int32_t>(k.of.width());
      frame scratch(ctx.scratch());
      float* const means = scratch.template allocate<float>(out.count() * D);  // (B·H, D)
      // a token's heads that lie together are read together, and unrotated ones share their turns
      bool const at_once = of == keys::unrotated || k.of.rows.heads_together();
      std::int64_t const bytes = at_once ? 0 : std::int64_t{D} * size_of(k.of.type);
      kernels::few_rows(ctx, out, bytes, [&](score_rows const& rows) {
        kernels::direction_sums(ctx, rows, k, means);
        kernels::each_row(ctx, rows, normalise{means, D});
        kernels::row_products(ctx, rows, k, means, minus_cosine{});
      });
    });
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.rows() * s.head_dim * 4) + keys_bytes(of, s) +
           std::max(kernels::direction_sums.bytes(ctx, s), kernels::row_products.bytes(ctx, s));
  }

  /// The mean's direction is the sum's.
  struct normalise {
    float* means;
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t r) const {
      float* const a = means + r * width;
      float squared = 0;
      for (std::int32_t d = 0; d < width; ++d) squared += a[d] * a[d];
      float const factor = inverse_root(squared);
      for (std::int32_t d = 0; d < width; ++d) a[d] *= factor;
    }
  };
  /// Of a key of length 1/x.
  struct minus_cosine {
    KVEVICT_HOST_DEVICE void operator()(float product, float& x) const { x *= -product; }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
