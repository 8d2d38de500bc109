// SPDX-License-Identifier: Apache-2.0
// The inverse Cholesky factor of a small matrix of each row.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(inverse_cholesky_tag, host&);

/// Who works on one matrix together: one thread, here.
struct host_team {
  static constexpr std::int32_t rank() { return 0; }
  static constexpr std::int32_t size() { return 1; }
  // lines of the matrix are dealt out, and the elements of a line
  static constexpr std::int32_t line() { return 0; }
  static constexpr std::int32_t lines() { return 1; }
  static constexpr std::int32_t lane() { return 0; }
  static constexpr std::int32_t lanes() { return 1; }
  static constexpr void sync() {}
};

/// L⁻¹ of every active row's matrix with a ridge, so that ‖L⁻¹x‖² = xᵀ(A + ridge)⁻¹x, which is never negative.
///
///   A + (of_mean·trace(A)/D + plus)·I = L·Lᵀ
///
/// A channel that the earlier ones make up (but for `dependent` of its square) is left out: of a singular A it is the
/// form of a generalised inverse, for x that A's columns span.
/// Shapes   a (B·H, D, D), its lower half is read, all of it overwritten → out (B·H, D, D), zeros above the diagonal.
/// Cost     D³/3 flop a row, in double; no scratch.   Errors   contract_violation: D is not 1 … 256. NaN stays NaN.
inline void kernel(inverse_cholesky_tag, host& ctx, score_rows const& of, std::int32_t width, cholesky_options const& o,
                   double* a, float* out) {
  expect_matrix("inverse_cholesky", width);
  std::int64_t const size = std::int64_t{width} * width;
  ctx.for_each(
      of.count(),
      [&](std::int64_t r, std::int32_t) {
        if (!of.rows[r].active) return;
        host_team alone;
        double work[2 * most_matrix_width];
        factorise(alone, o, width, a + r * size, work);
        invert(alone, width, a + r * size, out + r * size);
      },
      of.count() * size * width);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
