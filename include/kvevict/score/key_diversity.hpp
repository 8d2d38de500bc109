// SPDX-License-Identifier: Apache-2.0
// How far a key points away from what the keys of its head have in common.
#pragma once

#include <cmath>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/before_rotation.hpp>
#include <kvevict/evidence/evidence.hpp>
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
/// Cost     three reads of K, of unrotated keys with one cosine and sine an element; scratch D floats a row.
/// Errors   contract_violation if the cache has no keys that can be read, or a squared norm is not finite; of
///          unrotated keys: without rope, or if the component does not say what turned it, or something opaque did.
struct key_diversity {
  keys of = keys::cached;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    component const& k = readable("key_diversity", e.cache, role::k);
    if (of == keys::cached) {
      kernels::squared_norms(ctx, e.cache, k, out);
      return with_elements(e.cache, k, [&](auto const& cached) { compare(ctx, cached, out); });
    }
    frame scratch(ctx.scratch());
    auto const unrotated = before_rotation("key_diversity", ctx, scratch, e, k);
    if (unrotated.by.undo == 1)  // rotation keeps lengths
      kernels::squared_norms(ctx, e.cache, k, out);
    else
      kernels::each_token(ctx, out, squared_norm<decltype(unrotated)>{unrotated});
    compare(ctx, unrotated, out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    return scratch_step(s.rows() * s.head_dim * 4) + (of == keys::cached ? 0 : before_rotation_bytes(s));
  }

  /// 1/√x; 0 for 0, NaN where x is not finite.
  KVEVICT_HOST_DEVICE static float inverse_root(float x) { return x == 0 ? 0.0f : x - x + 1 / ::sqrtf(x); }

  template <class Keys> struct squared_norm {
    Keys keys;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      auto const k = keys.reader(in);
      x = 0;
      for (std::int32_t first = 0; first < k.width(); first += row_chunk) {
        float e[row_chunk];
        k.read(j, first, e);
        for (float const y : e) x += y * y;
      }
    }
  };
  /// k_j/‖k_j‖, where the scores hold ‖k_j‖².
  template <class Keys> struct directions {
    Keys keys;
    score_rows squared_norms;

    [[gnu::always_inline]] KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first,
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
      x = -keys.reader(in).dot(j, anchors + rows.index_of(in) * width) * inverse_root(x);
    }
  };

 private:
  /// From squared norms to scores.
  template <class Context, class Keys> static void compare(Context& ctx, Keys const& k, score_rows& out) {
    auto const D = static_cast<std::int32_t>(k.of.width());
    frame scratch(ctx.scratch());
    float* const anchors = scratch.template allocate<float>(out.count() * D);  // (B·H, D)
    kernels::row_sums(ctx, out, token_groups{}, D, directions<Keys>{k, out}, anchors);
    kernels::each_row(ctx, out, normalise{anchors, D});
    kernels::each_token(ctx, out, minus_cosine<Keys>{k, out, anchors, D});
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
