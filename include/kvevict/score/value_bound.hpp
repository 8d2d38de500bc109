// SPDX-License-Identifier: Apache-2.0
// Any score, times the largest value of the head: scores that compare over heads.
#pragma once

#include <algorithm>
#include <utility>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The inner score times the largest L1 norm of a value of the head: with attention inside, a bound of what evicting
/// the token takes from the head's output. Within a head nothing changes; between heads of a layer scores compare, so
/// heads::adaptive may move budget by them.
///
///   ŝ(h,j) = s(h,j) · max_n ‖v(h,n)‖₁      over all N tokens of the head
///
/// Paper    LAVa, Shen et al., EMNLP 2025, arXiv:2509.09754.   Second-hand: the formula by a digest of others, not the
///          paper; budgets of layers are layers::entropy.
/// Shapes   values (H,N,D) → scores (H,N). Scaling all values by a power of two changes no keep set.
/// Cost     one read of V; scratch one float a row.
/// Errors   contract_violation if the cache has no V that can be read; the inner score's.
template <class Inner> struct value_bound {
  Inner inner;

  constexpr std::int32_t state_floats() const requires requires(Inner const& i) { i.state_floats(); }
  { return inner.state_floats(); }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("value_bound", e);
    component const& v = readable("value_bound", e.cache, role::v);
    inner(ctx, e, out);
    frame scratch(ctx.scratch());
    float* const largest = scratch.template allocate<float>(out.count());
    with_elements(e.cache, v, [&](auto const& values) {
      kernels::row_max(ctx, out, token_groups{}, 1, absolute_sum<std::decay_t<decltype(values)>>{values}, largest);
    });
    kernels::each_token(ctx, out, times_of_row{out, largest});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t of_inner = 0;
    if constexpr (requires { inner.workspace_bytes(ctx, s); }) of_inner = inner.workspace_bytes(ctx, s);
    return std::max(of_inner, scratch_step(s.rows() * 4));
  }

  template <class Context, class Evidence, class... Rest>
  void observe(Context& ctx, Evidence const& e, Rest&&... rest) const {
    inner.observe(ctx, e, std::forward<Rest>(rest)...);
  }

  template <class Values> struct absolute_sum {
    Values values;

    KVEVICT_HOST_DEVICE float operator()(row const& in, std::int64_t j) const {
      auto const v = values.reader(in);
      float sum = 0;
      for (std::int32_t first = 0; first < v.width(); first += row_chunk) {
        float e[row_chunk];
        v.read(j, first, e);
        for (float const y : e) sum += y < 0 ? -y : y;
      }
      return sum;
    }
  };
  struct times_of_row {
    score_rows rows;
    float const* factors;  // (B·H)
    constexpr void operator()(row const& in, std::int64_t, float& x) const { x *= factors[rows.index_of(in)]; }
  };
};
template <class Inner> value_bound(Inner) -> value_bound<Inner>;

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
