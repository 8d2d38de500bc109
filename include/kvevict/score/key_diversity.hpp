// SPDX-License-Identifier: Apache-2.0
// How far a key points away from what the keys of its head have in common.
#pragma once

#include <cmath>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Minus the cosine between a key and the mean direction of the keys of its head: keys unlike the others stay.
///
///   s(h,j) = −cos( k_j, 1/N · Σ_n k_n/‖k_n‖ )      over all N tokens of the head; a key or mean of zero: 0
///
/// Paper    KeyDiff, Park et al. 2025, arXiv:2504.15364.   Differs: nothing; the keys are those of the cache, rotated.
/// Shapes   keys (H,N,D), floats or quantised → (H,N) float in [−1,1]. Needs no queries; rows may be scattered.
/// Cost     three reads of K; scratch D floats a row.
/// Errors   contract_violation if the cache has no keys that can be read, or a squared norm is not finite.
struct key_diversity {
  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    component const& keys = readable("key_diversity", e.cache, role::k);
    auto const D = static_cast<std::int32_t>(keys.width());
    frame scratch(ctx.scratch());
    float* const anchors = scratch.template allocate<float>(out.count() * D);  // (B·H, D)
    row_elements const k{e.cache, keys};
    kernels::squared_norms(ctx, e.cache, keys, out);
    kernels::row_sums(ctx, out, token_groups{}, D, directions<decltype(k)>{k, out}, anchors);
    kernels::each_row(ctx, out, normalise{anchors, D});
    kernels::each_token(ctx, out, minus_cosine<decltype(k)>{k, out, anchors, D});
  }

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    return scratch_step(s.rows() * s.head_dim * 4);
  }

  /// 1/√x; 0 for 0, NaN where x is not finite.
  KVEVICT_HOST_DEVICE static float inverse_root(float x) { return x == 0 ? 0.0f : x - x + 1 / ::sqrtf(x); }

  /// k_j/‖k_j‖, where the scores hold ‖k_j‖².
  template <class Keys> struct directions {
    Keys keys;
    score_rows squared_norms;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first,
                                        float (&x)[row_chunk]) const {
      keys(in, j, first, x);
      float const factor = inverse_root(squared_norms.score(in, j));
      for (float& e : x) e *= factor;
    }
  };
  /// The mean's direction is the sum's.
  struct normalise {
    float* anchors;
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t r) const {
      float* const a = anchors + r * width;
      float squared = 0;
      for (std::int32_t d = 0; d < width; ++d) squared += a[d] * a[d];
      float const factor = inverse_root(squared);
      for (std::int32_t d = 0; d < width; ++d) a[d] *= factor;
    }
  };
  template <class Keys> struct minus_cosine {
    Keys keys;
    score_rows rows;
    float const* anchors;
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      row_reader const k(keys.cache, keys.of, in);
      x = -k.dot(j, anchors + rows.index_of(in) * width) * inverse_root(x);
    }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
