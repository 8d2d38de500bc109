// SPDX-License-Identifier: Apache-2.0
// How small a key is.
#pragma once

#include <cmath>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Minus the length of a token's key: small keys stay, which queries of most heads attend to more.
///
///   s(h,j) = −‖k_j‖₂
///
/// Rotation keeps lengths, so rotated and unrotated keys have the same score.
/// Paper    Devoto et al., EMNLP 2024, arXiv:2406.11430.   Differs: all layers; the authors leave out the first two,
///          which a caller does by not planning them.
/// Shapes   keys (H,N,D), floats or quantised → (H,N) float, 0 or less. Needs no queries; rows may be scattered.
/// Cost     one read of K; no scratch.
/// Errors   contract_violation if the cache has no keys that can be read, or a squared norm is not finite.
struct key_norm {
  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    kernels::squared_norms(ctx, e.cache, readable("key_norm", e.cache, role::k), out);
    kernels::each_token(ctx, out, minus_root{});
  }

  struct minus_root {
    KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t, float& x) const { x = -::sqrtf(x); }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
