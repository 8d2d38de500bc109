// SPDX-License-Identifier: Apache-2.0
// Any score, pooled along the tokens.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The largest of the inner scores of a token's neighbours and its own, so that what stands beside a token that stays
/// does, too; or their average. window_attention's pooling, over any score.
///
///   ŝ(h,j) = max over |i − j| ≤ width/2 of s(h,i)      over the tokens before the recent ones, sinks among them;
///   what the inner score says of padding is not read
///
/// Shapes   scores (H,N) → (H,N).
/// Cost     the inner score's; width loads a token; on a device a copy of the scores. Width 1 costs nothing.
/// Errors   contract_violation for an even width, or where rows are scattered and it is above 1; the inner score's.
template <class Inner> struct pooled {
  Inner inner;
  pool_options pool{5, pooling::max};

  constexpr std::int32_t state_floats() const requires requires(Inner const& i) { i.state_floats(); }
  { return inner.state_floats(); }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    inner(ctx, e, out);
    if (pool.width > 1)
      set_padding(ctx, e, out, pool.kind == pooling::max ? std::numeric_limits<float>::lowest() : 0.0f);
    kernels::pool(ctx, pool, out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t of_inner = 0;
    if constexpr (requires { inner.workspace_bytes(ctx, s); }) of_inner = inner.workspace_bytes(ctx, s);
    return std::max(of_inner, kernels::pool.bytes(ctx, s, pool));
  }

  template <class Context, class Evidence, class... Rest>
  void observe(Context& ctx, Evidence const& e, Rest&&... rest) const {
    inner.observe(ctx, e, std::forward<Rest>(rest)...);
  }
};
template <class Inner> pooled(Inner) -> pooled<Inner>;
template <class Inner> pooled(Inner, pool_options) -> pooled<Inner>;

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
