// SPDX-License-Identifier: Apache-2.0
// Any score, weighted by how large the token's value is.
#pragma once

#include <algorithm>
#include <utility>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The inner score times the token's share of the head's largest pooled squared value norm.
///
///   ν_j = ‖v_j‖²;  γ = avgpool(ν);  ŝ(h,j) = s(h,j) · γ_j / max_n γ_n       over all N tokens of the head; max = 0 →
///   factor 1
///
/// Paper    AhaKV, Gu et al. 2025, arXiv:2506.03762.   Differs: pool width 5, zeros outside, divided by the width,
///          maximum over all tokens of the head (not stated in what we could read); width 1 is no pooling.
/// Shapes   values (H,N,D) → factor (H,N) in [0,1]. Scaling all values by a power of two changes nothing.
/// Cost     one read of V; scratch N floats a row.
/// Errors   contract_violation if the cache has no V component, or if rows are scattered and the pool is wider than 1.
template <class Inner> struct value_prior {
  Inner inner;
  pool_options pool{5, pooling::average};

  constexpr std::int32_t state_floats() const requires requires(Inner const& i) { i.state_floats(); }
  { return inner.state_floats(); }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("value_prior", e);
    component const* v = e.cache.find(role::v);
    KVEVICT_EXPECTS(v != nullptr, "value_prior: the cache has no V component; add it to the view");
    inner(ctx, e, out);
    frame scratch(ctx.scratch());
    score_rows gamma = out;  // the same rows
    gamma.values = scratch.template allocate<float>(out.total_floats);
    kernels::squared_norms(ctx, e.cache, *v, gamma);
    kernels::pool(ctx, pool, pool_range::all, gamma);
    kernels::multiply_by_share(ctx, gamma, out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t const own = scratch_step(s.rows() * s.tokens * 4);
    std::int64_t of_inner = 0;
    if constexpr (requires { inner.workspace_bytes(ctx, s); }) of_inner = inner.workspace_bytes(ctx, s);
    return std::max(of_inner, own + kernels::pool.bytes(ctx, s, pool));
  }

  template <class Context, class Evidence, class... Rest>
  void observe(Context& ctx, Evidence const& e, Rest&&... rest) const {
    inner.observe(ctx, e, std::forward<Rest>(rest)...);
  }
};
template <class Inner> value_prior(Inner, pool_options) -> value_prior<Inner>;
template <class Inner> value_prior(Inner) -> value_prior<Inner>;

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
