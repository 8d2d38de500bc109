// SPDX-License-Identifier: Apache-2.0
// The product of every token with a vector of its row.
#pragma once

#include <kvevict/core/fill.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/float_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/token_parts.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(row_products_tag, host&);

/// f(x · vector, score) of `count` tokens.
template <class Rows, class F>
[[gnu::noinline]] void multiply_rows(Rows rows, int count, float const* vector, F const& f, float* scores) {
  constexpr int N = rows_abreast;
  for (int i = 0; i < count; i += N) {
    rows.all.fetch_ahead(i);
    vec sum[N] = {};
    rows.visit(
        i, [&](std::int32_t d, vec const(&x)[N]) __attribute__((always_inline)) {
          vec const y = load(vector + d);
          unroll<N>([&](auto k) { sum[k] = multiply_add(x[k], y, sum[k]); });
        });
    vec sums_of[N];
    unroll<N>([&](auto k) { sums_of[k] = sum[k]; });
    float products[lanes];
    store(products, reduce<N>(sums_of, add{}));
    for (int k = 0; k < std::min(N, count - i); ++k) f(products[k * (lanes / N)], scores[i + k]);
  }
}

/// f(Σ_d x(r,j,d)·v(r,d), score) of every token of every active row.
///
/// Shapes   elements (H,N,D) as with_keys and with_elements give them, vectors (B·H, D) → scores (B·H rows, N).
/// Cost     one read of the elements; scratch 40·D floats a worker. No bit depends on threads, page size or layout.
/// Errors   none.
template <class Elements, class F>
void kernel(row_products_tag, host& ctx, score_rows const& out, Elements const& of, float const* vectors, F const& f) {
  auto const D = static_cast<std::int32_t>(of.of.width());
  using rows_of = decltype(float_rows(of, static_cast<float*>(nullptr)));
  std::int64_t const share = padded(D, 16) + rows_of::floats(D);
  frame scratch(ctx.scratch());
  float* const memory = scratch.allocate<float>(ctx.concurrency() * share);
  each_part(ctx, out, D, [&](token_part const& part, std::int32_t slot) {
    float* const whole_vector = memory + slot * share;
    kvevict::fill_n(whole_vector, padded(D, lanes), 0.0f);
    rows_of rows(of, whole_vector + padded(D, 16));
    part.each_block([&](std::int64_t r, std::int64_t first, int count) {
      rows.go_to(out.rows[r], first, count);
      float const* vector = vectors + r * D;
      if (D % lanes != 0) {
        kvevict::copy_n(vector, D, whole_vector);
        vector = whole_vector;
      }
      rows.with_rows([&](auto of_type) { multiply_rows(of_type, count, vector, f, out.scores(r).data + first); });
    });
  });
}
inline std::int64_t workspace(row_products_tag, host const& ctx, cache_shape const& s) {
  return scratch_step(ctx.concurrency() * (padded(s.head_dim, 16) + float_rows<std::int32_t>::floats(s.head_dim)) * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
