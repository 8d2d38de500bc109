// SPDX-License-Identifier: Apache-2.0
// The attention that later queries will pay, by what queries are like.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/score/later_queries.hpp>
#include <kvevict/score/within_groups.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// What expected attention is multiplied by.
enum class value_factor : std::uint8_t { none, norm };

/// Attention that queries of the next F positions will pay to each token if they are normally distributed, as those of
/// the prompt are before rotation, times the length of its value.
///
///   z(hq,j) = k_j·R̄μ·scale + k_jᵀ R̄ΣR̄ᵀ k_j·scale²/2,    the logarithm of E exp(q·k_j·scale)
///   s(h,j) = ( 1/G·Σ_g softmax_n( z(h·G+g, n) )[j] + ε ) · ‖v(h,j)‖₂      over the evictable tokens
///
/// μ and Σ before rotation, R̄ the mean rotation of the F positions behind the newest token: see later_queries.
/// Paper    Expected Attention, Devoto et al. 2025, arXiv:2510.00636.   Differs: second-hand, by kvpress 0.5.5, whose
///          goldens it passes; the softmax leaves out what is protected, where theirs leaves out the sinks; a soft cap
///          of logits is not looked at.
/// Shapes   queries (T,Hq,D), better all than a window, or moments; keys (H,N,D), D ≤ 256; values → (H,N) float.
/// Cost     of each query head two reads of K and N·D² flop, without covariance one read; of queries instead of moments
///          see later_queries; one read of V. Scratch: that, and N floats a row.
/// Errors   contract_violation: as before_rotation; D above 256; moments that do not fit, or lack a covariance that is
///          asked for; a negative ε; no V where its norm is asked for; keys in two parts; padding.
struct expected_attention {
  later_options later{};
  float epsilon = 0;
  value_factor values = value_factor::norm;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has<Evidence, facts::queries> || has<Evidence, facts::moments>,
                  "expected_attention: the evidence has no queries and no moments of them; use prompt(cache, queries), "
                  "or with_query_moments(...)");
    expect_no_padding("expected_attention", e);
    KVEVICT_EXPECTS(epsilon >= 0 && epsilon < 1e9f, "expected_attention: epsilon is ", epsilon, "; give 0 or more");
    component const& k = readable("expected_attention", e.cache, role::k);
    frame scratch(ctx.scratch());
    later_queries<Evidence> queries("expected_attention", ctx, scratch, e, out, later);
    score_rows one = out;  // the same rows
    one.values = scratch.template allocate<float>(out.total_floats);
    float const scale = queries.logit_scale(), share = 1.0f / static_cast<float>(queries.group());
    token_groups const evictable{0, 0, token_range::evictable};
    for (std::int32_t g = 0; g < queries.group(); ++g) {
      queries.look_at(ctx, g);
      float const half = queries.with_covariance() ? scale * scale / 2 : 0.0f;
      if (queries.with_covariance()) kernels::mapped_sums(ctx, one, queries.covariance(), queries.keys());
      with_elements(e.cache, k, [&](auto const& keys) {
        kernels::each_token(ctx, one, logit<std::decay_t<decltype(keys)>>{keys, one, queries.means(), scale, half});
      });
      softmax_within(ctx, evictable, one);
      kernels::each_token(ctx, out, add{one, g == 0 ? 0.0f : 1.0f, share});
    }
    if (values == value_factor::none) return;
    kernels::squared_norms(ctx, e.cache, readable("expected_attention", e.cache, role::v), one);
    kernels::each_token(ctx, out, times_length{one, epsilon});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return later_queries_bytes(ctx, s, later) + scratch_step(s.rows() * s.tokens * 4) +
           std::max(kernels::mapped_sums.bytes(ctx, s), softmax_within_bytes(s.rows()));
  }

  /// From kᵀΣk to z.
  template <class Keys> struct logit {
    Keys keys;
    score_rows rows;
    float const* means;  // (B·H, D)
    float scale, half;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      auto const k = keys.reader(in);
      float const linear = scale * k.dot(j, means + rows.index_of(in) * k.width());
      x = half == 0 ? linear : multiply_add(half, x, linear);
    }
  };
  struct add {
    score_rows of;
    float before, share;
    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      x = (before == 0 ? 0.0f : x) + of.score(in, j) * share;
    }
  };
  struct times_length {
    score_rows squared;
    float epsilon;
    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      x = (x + epsilon) * ::sqrtf(squared.score(in, j));
    }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
