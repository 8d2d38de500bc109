// SPDX-License-Identifier: Apache-2.0
// The sum of the directions of a head's tokens.
#pragma once

#include <kvevict/core/fill.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/float_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/token_parts.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(direction_sums_tag, host&);

/// 1/length of `count` tokens to `inverse`, and their directions added to `sums`, token by token.
template <class Rows> [[gnu::noinline]] void add_directions(Rows rows, int count, float* inverse, float* sums) {
  constexpr int N = rows_abreast, apart = lanes / N;
  for (int i = 0; i < count; i += N) {
    rows.all.fetch_ahead(i);
    vec squares[N] = {};
    rows.visit_for_lengths(
        i, [&](std::int32_t, vec const(&x)[N]) __attribute__((always_inline)) {
          unroll<N>([&](auto k) { squares[k] = multiply_add(x[k], x[k], squares[k]); });
        });
    vec sums_of[N];
    unroll<N>([&](auto k) { sums_of[k] = squares[k]; });
    float factor[lanes];
    store(factor, inverse_root(reduce<N>(sums_of, add{})));
    for (int k = 0; k < std::min(N, count - i); ++k) inverse[i + k] = factor[k * apart];
    for (int k = count - i; k < N; ++k) factor[k * apart] = 0;
    vec factors[N];
    unroll<N>([&](auto k) { factors[k] = splat(factor[k * apart]); });
    rows.visit(
        i, [&](std::int32_t d, vec const(&x)[N]) __attribute__((always_inline)) {
          vec sum = load(sums + d);
          unroll<N>([&](auto k) { sum = multiply_add(x[k], factors[k], sum); });
          store(sums + d, sum);
        });
  }
}

/// Σ over the tokens of each active row of their directions; the scores become what makes a direction of a token.
///
///   out(r,d) = Σ_j x(r,j,d) · s(r,j),   s(r,j) = 1/‖x(r,j)‖₂        0 of a token of zeros, NaN where no norm is finite
///
/// Shapes   elements (H,N,D) as with_keys and with_elements give them → out (B·H, D) in the context's memory, scores
///          (B·H rows, N).
/// Cost     one read of the elements; scratch 1/128 of a float a token and channel, and 40·D a worker. Sums are of
///          parts of 512 tokens, in their order, so that no bit depends on threads, page size or layout.
/// Errors   none.
template <class Elements>
void kernel(direction_sums_tag, host& ctx, score_rows const& out, Elements const& of, float* sums) {
  auto const D = static_cast<std::int32_t>(of.of.width());
  using rows_of = decltype(float_rows(of, sums));
  std::int64_t const stride = padded(D, lanes), parts = token_part::count(out.most_tokens), share = rows_of::floats(D);
  frame scratch(ctx.scratch());
  float *const of_parts = scratch.allocate<float>(out.count() * parts * stride),  // (B·H, parts, D)
      *const memory = scratch.allocate<float>(ctx.concurrency() * share);
  each_part(ctx, out, D, [&](token_part const& part, std::int32_t slot) {
    rows_of rows(of, memory + slot * share);
    part.each_block([&](std::int64_t r, std::int64_t first, int count) {
      float* const to = of_parts + (r * parts + part.index) * stride;
      if (first % token_part::tokens == 0) kvevict::fill_n(to, stride, 0.0f);
      rows.go_to(out.rows[r], first, count);
      rows.with_rows([&](auto of_type) { add_directions(of_type, count, out.scores(r).data + first, to); });
    });
  });
  for (std::int64_t r = 0; r < out.count(); ++r) {
    if (!out.rows[r].active) continue;
    float* const to = sums + r * D;
    kvevict::fill_n(to, D, 0.0f);
    for (std::int64_t i = 0; i < token_part::count(out.rows[r].tokens); ++i)
      for (std::int32_t d = 0; d < D; ++d) to[d] += of_parts[(r * parts + i) * stride + d];
  }
}
inline std::int64_t workspace(direction_sums_tag, host const& ctx, cache_shape const& s) {
  return scratch_step(s.rows() * token_part::count(s.tokens) * padded(s.head_dim, lanes) * 4) +
         scratch_step(ctx.concurrency() * float_rows<std::int32_t>::floats(s.head_dim) * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
