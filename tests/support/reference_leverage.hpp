// SPDX-License-Identifier: Apache-2.0
// Ridge leverage by Gauss-Jordan elimination with pivots.
#pragma once

#include <utility>

#include "support/reference_keys.hpp"

namespace reference {

/// a⁻¹·b of a dense matrix.
inline row solve(rows a, row b) {
  std::size_t const n = b.size();
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t best = k;
    for (std::size_t i = k; i < n; ++i)
      if (std::abs(a[i][k]) > std::abs(a[best][k])) best = i;
    std::swap(a[k], a[best]), std::swap(b[k], b[best]);
    for (std::size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      double const factor = a[i][k] / a[k][k];
      for (std::size_t j = k; j < n; ++j) a[i][j] -= factor * a[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (std::size_t k = 0; k < n; ++k) b[k] /= a[k][k];
  return b;
}
inline double dot(row const& a, row const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// x_jᵀ (Σ_n x_n x_nᵀ + ridge·I)⁻¹ x_j of every token; `of_mean`: times the mean of the diagonal, added to the ridge.
inline row leverage_of(rows const& x, double of_mean, double ridge) {
  std::size_t const D = x[0].size();
  rows gram(D, row(D, 0.0));
  for (row const& e : x)
    for (std::size_t a = 0; a < D; ++a)
      for (std::size_t b = 0; b < D; ++b) gram[a][b] += e[a] * e[b];
  double trace = 0;
  for (std::size_t a = 0; a < D; ++a) trace += gram[a][a];
  for (std::size_t a = 0; a < D; ++a) gram[a][a] += of_mean * trace / static_cast<double>(D) + ridge;
  row out;
  for (row const& e : x) out.push_back(dot(e, solve(gram, e)));
  return out;
}

inline rows leverage(layer const& in, double of_mean) {
  rows out;
  for (std::size_t h = 0; h < in.H(); ++h) {
    row const mean = mean_key(in, h, 0, in.N());
    rows x;
    for (std::size_t t = 0; t < in.N(); ++t) {
      x.push_back(token_row(in.keys, h, t));
      for (std::size_t d = 0; d < mean.size(); ++d) x.back()[d] -= mean[d];
    }
    out.push_back(leverage_of(x, of_mean, 0));
  }
  return out;
}

}  // namespace reference
