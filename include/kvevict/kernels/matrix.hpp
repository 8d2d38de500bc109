// SPDX-License-Identifier: Apache-2.0
// A small matrix of each row, D×D: what the kernels of both contexts share.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

inline constexpr std::int32_t most_matrix_width = 256;

inline void expect_matrix(char const* who, std::int32_t width) {
  KVEVICT_EXPECTS(width >= 1 && width <= most_matrix_width, who, ": a matrix of ", width, " channels; 1 to ",
                  most_matrix_width, " fit, use a score that needs no matrix for wider rows");
}

/// What a token makes of a line of a map, y of its product and x of its own number: y², x·y or |y|.
enum class mapped_term : std::uint8_t { square, product, size };

/// A matrix (D,D) of each row, zeros above the diagonal, for ‖M·x‖².
struct lower_map {
  static constexpr mapped_term term = mapped_term::square;
  static constexpr bool triangular = true;
  float const* m;  // (B·H, D, D)
  std::int32_t width;

  constexpr std::int64_t lines() const { return width; }
  KVEVICT_HOST_DEVICE float at(row const&, std::int64_t r, std::int64_t i, std::int32_t d) const {
    return m[(r * width + i) * width + d];
  }
};

/// What is added to the diagonal, and which channels count as sums of those before them.
struct cholesky_options {
  double of_mean = 0;       // times the mean of the diagonal
  double plus = 0;          // as it is
  double dependent = 1e-5;  // a channel of which those before it leave no larger part, squared, has none of its own
};

/// The root of what the earlier channels leave of one, of `whole`; 0 where that is nothing but rounding. NaN stays NaN.
KVEVICT_HOST_DEVICE inline double root_of_rest(double rest, double whole, double dependent) {
  return rest <= dependent * whole ? 0.0 : ::sqrt(rest);
}
KVEVICT_HOST_DEVICE inline double inverse_or_zero(double x) { return x == 0 ? 0.0 : 1 / x; }

/// In place: the lower half becomes L, the diagonal included. `Team`: the workers that do it together, see host_team.
/// Shapes   a (D,D), work (2·D) that all workers share.
template <class Team>
KVEVICT_HOST_DEVICE void factorise(Team& team, cholesky_options const& o, std::int32_t D, double* a, double* work) {
  double *const column = work, *const whole = work + D;
  double trace = 0;
  for (std::int32_t i = 0; i < D; ++i) trace += a[std::int64_t{i} * D + i];
  double const ridge = o.of_mean * trace / D + o.plus;
  team.sync();
  for (std::int32_t i = team.rank(); i < D; i += team.size()) whole[i] = a[std::int64_t{i} * D + i] += ridge;
  team.sync();
  for (std::int32_t k = 0; k < D; ++k) {
    double const root = root_of_rest(a[std::int64_t{k} * D + k], whole[k], o.dependent), share = inverse_or_zero(root);
    team.sync();
    for (std::int32_t i = k + team.rank(); i < D; i += team.size())
      a[std::int64_t{i} * D + k] = column[i] = i == k ? root : a[std::int64_t{i} * D + k] * share;
    team.sync();
    for (std::int32_t i = k + 1 + team.line(); i < D; i += team.lines()) {
      double const x = column[i];
      for (std::int32_t j = k + 1 + team.lane(); j <= i; j += team.lanes()) a[std::int64_t{i} * D + j] -= x * column[j];
    }
    team.sync();
  }
}

/// out = L⁻¹, a column each; the upper half of `a` takes what has been worked out. A channel without a part of its own
/// has a line and a column of zeros.
/// Shapes   a (D,D) that factorise has made → out (D,D).
template <class Team> KVEVICT_HOST_DEVICE void invert(Team& team, std::int32_t D, double* a, float* out) {
  for (std::int32_t k = team.rank(); k < D; k += team.size()) {
    double* const solved = a + std::int64_t{k} * D;  // behind k
    double const first = inverse_or_zero(solved[k]);
    for (std::int32_t i = 0; i < k; ++i) out[std::int64_t{i} * D + k] = 0;
    out[std::int64_t{k} * D + k] = static_cast<float>(first);
    for (std::int32_t i = k + 1; i < D; ++i) {
      double const* const line = a + std::int64_t{i} * D;
      double sum = line[k] * first;
      for (std::int32_t m = k + 1; m < i; ++m) sum += line[m] * solved[m];
      solved[i] = -sum * inverse_or_zero(line[i]);
      out[std::int64_t{i} * D + k] = static_cast<float>(solved[i]);
    }
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
