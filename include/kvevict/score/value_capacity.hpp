// SPDX-License-Identifier: Apache-2.0
// How much of a value the values of tokens that later queries will ask for cannot make up.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/matrix.hpp>
#include <kvevict/score/expected_attention.hpp>
#include <kvevict/score/key_diversity.hpp>
#include <kvevict/score/later_queries.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Leverage of a token's value among the evictable ones of its head, each weighed by how much its key is in line with
/// the mean of later queries.
///
///   w_n = exp( τ·( cos(k_n, R̄μ) − max_m cos(k_m, R̄μ) ) )
///   s(h,j) = 1/G·Σ_g w_j · v_jᵀ (I + Σ_n w_n·v_n·v_nᵀ)⁻¹ v_j      w of query head h·G+g; 0 ≤ s < 1, Σ_j s ≤ D
///
/// μ the mean of queries before rotation, R̄ the mean rotation of the positions behind the newest token: see
/// later_queries. A key or mean of zero has cosine 0.
/// Paper    CapKV, 2026, arXiv:2604.25975.   Second-hand, by kvpress 0.5.5 (the paper is said to have k·μ in place of
///          the cosine, and not to turn μ).   Differs: what is protected takes no part, where theirs leaves out the
///          sinks; no 10⁻⁶ is added to w.
/// Shapes   queries (T,Hq,D) or moments, keys (H,N,D), values (H,N,Dv), both widths ≤ 256 → (H,N) float in [0,1).
/// Cost     of each query head one read of K and its length, two of V, 2·N·Dv² + Dv³/3 flop; of queries instead of
///          moments one read of them. Scratch 8·N + 12·Dv² bytes a row, and later_queries'.
/// Errors   contract_violation: as expected_attention's; τ ∉ [0, 40]; no values.
struct value_capacity {
  float sharpness = 5;  // τ
  std::int32_t positions = 512, left_out = 4;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has<Evidence, facts::queries> || has<Evidence, facts::moments>,
                  "value_capacity: the evidence has no queries and no moments of them; use prompt(cache, queries), or "
                  "with_query_moments(...)");
    expect_no_padding("value_capacity", e);
    KVEVICT_EXPECTS(sharpness >= 0 && sharpness <= 40, "value_capacity: a sharpness of ", sharpness,
                    "; give 0 to 40, such as 5");
    component const &k = readable("value_capacity", e.cache, role::k),
                    &v = readable("value_capacity", e.cache, role::v);
    auto const D = static_cast<std::int32_t>(v.width());
    kernels::expect_matrix("value_capacity", D);
    frame scratch(ctx.scratch());
    later_queries<Evidence> queries("value_capacity", ctx, scratch, e, out, later());
    score_rows roots = out, one = out;  // the same rows
    roots.values = scratch.template allocate<float>(out.total_floats);
    one.values = scratch.template allocate<float>(out.total_floats);
    std::int64_t const size = std::int64_t{D} * D;
    auto* const products = scratch.template allocate<double>(out.count() * size);
    auto* const map = scratch.template allocate<float>(out.count() * size);
    for (std::int32_t g = 0; g < queries.group(); ++g) {
      queries.look_at(ctx, g);
      weigh(ctx, e, k, queries.means(), roots);
      with_elements(e.cache, v, [&](auto const& values) {
        weighed<std::decay_t<decltype(values)>> const x{values, roots};
        kernels::gram(ctx, out, D, x, products);
        kernels::inverse_cholesky(ctx, out, D, kernels::cholesky_options{0, 1, 0}, products, map);
        kernels::mapped_sums(ctx, one, kernels::lower_map{map, D}, x);
      });
      float const share = 1.0f / static_cast<float>(queries.group());
      kernels::each_token(ctx, out, expected_attention::add{one, g == 0 ? 0.0f : 1.0f, share});
    }
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t const D = s.head_dim;
    return later_queries_bytes(ctx, s, later()) + 2 * scratch_step(s.rows() * s.tokens * 4) +
           scratch_step(s.rows() * D * D * 8) + scratch_step(s.rows() * D * D * 4) +
           std::max({kernels::gram.bytes(ctx, s), kernels::mapped_sums.bytes(ctx, s),
                     scratch_step(s.rows() * 4) + kernels::row_products.bytes(ctx, s)});
  }

  struct to_inverse_length {
    KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t, float& x) const { x = inverse_root(x); }
  };
  /// From −cosines to √w; nothing of tokens that are protected.
  struct root_of_weight {
    score_rows rows;
    float const* least;  // (B·H)
    float half;          // τ/2

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      std::int64_t const r = rows.index_of(in);
      x = rows.evictable(r, j) ? ::expf(half * (least[r] - x)) : 0.0f;
    }
  };
  template <class Values> struct weighed {
    Values values;
    score_rows roots;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first,
                                        float (&x)[row_chunk]) const {
      float const root = roots.score(in, j);
      values(in, j, first, x);
      for (float& e : x) e = root == 0 ? 0.0f : e * root;  // whatever a protected value is
    }
  };

 private:
  constexpr later_options later() const { return {positions, query_spread::mean, left_out}; }

  template <class Context, class Evidence>
  void weigh(Context& ctx, Evidence const& e, component const& k, float* means, score_rows const& roots) const {
    auto const D = static_cast<std::int32_t>(k.width());
    frame scratch(ctx.scratch());
    float* const least = scratch.template allocate<float>(roots.count());
    kernels::squared_norms(ctx, e.cache, k, roots);
    kernels::each_row(ctx, roots, key_diversity::normalise{means, D});
    kernels::each_token(ctx, roots, to_inverse_length{});
    with_elements(e.cache, k, [&](auto const& keys) {
      kernels::row_products(ctx, roots, keys, means, key_diversity::minus_cosine{});
    });
    kernels::row_min(ctx, roots, token_groups{0, 0, token_range::evictable}, 1, row_scores{roots}, least);
    kernels::each_token(ctx, roots, root_of_weight{roots, least, sharpness / 2});
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
