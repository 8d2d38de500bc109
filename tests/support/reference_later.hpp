// SPDX-License-Identifier: Apache-2.0
// Attention of later queries by their moments, naively: the mean rotation is a matrix, added up position by position.
#pragma once

#include "support/reference_leverage.hpp"
#include "support/ropes.hpp"

namespace reference {

struct moments {
  row mean;         // (D)
  rows covariance;  // (D,D)
};

inline moments moments_of(rows const& queries) {
  std::size_t const D = queries.at(0).size();
  auto const n = static_cast<double>(queries.size());
  moments out{row(D, 0.0), rows(D, row(D, 0.0))};
  for (row const& q : queries)
    for (std::size_t d = 0; d < D; ++d) out.mean[d] += q[d] / n;
  for (row const& q : queries)
    for (std::size_t a = 0; a < D; ++a)
      for (std::size_t b = 0; b < D; ++b) out.covariance[a][b] += (q[a] - out.mean[a]) * (q[b] - out.mean[b]) / n;
  return out;
}

inline row multiply(rows const& a, row const& x) {
  row out;
  for (row const& line : a) out.push_back(dot(line, x));
  return out;
}

/// Mean of the rotations of positions [first, first + count), (D,D); of D elements the rope may turn fewer.
inline rows mean_rotation(support::known_rope const& by, std::size_t D, std::int64_t first, int count) {
  rows out(D, row(D, 0.0));
  for (std::size_t c = 0; c < D; ++c)
    for (int t = 0; t < count; ++t) {
      std::vector<real> unit(D, 0);
      unit[c] = 1;
      std::vector<real> const turned = by.turned(unit, static_cast<real>(first + t));
      for (std::size_t d = 0; d < D; ++d) out[d][c] += static_cast<double>(turned[d]) / count;
    }
  return out;
}

/// The moments of queries there.
inline moments turned(moments const& of, rows const& R) {
  moments out{multiply(R, of.mean), {}};
  rows half;  // ΣRᵀ
  for (row const& line : of.covariance) half.push_back(multiply(R, line));
  std::size_t const D = of.mean.size();
  out.covariance = rows(D, row(D, 0.0));
  for (std::size_t a = 0; a < D; ++a)
    for (std::size_t b = 0; b < D; ++b)
      for (std::size_t c = 0; c < D; ++c) out.covariance[a][b] += R[a][c] * half[c][b];
  return out;
}

/// Scores of tokens [begin, end) of every KV head: softmax of E exp(q·k·scale), group mean, times the value's length.
inline rows expected_attention(layer const& in, std::vector<moments> const& later, std::size_t begin, std::size_t end,
                               bool covariance, double epsilon, bool norms) {
  double const scale = in.scale != 0 ? in.scale : 1 / std::sqrt(static_cast<double>(in.D()));
  rows out(in.H(), row(end - begin, 0.0));
  for (std::size_t hq = 0; hq < later.size(); ++hq) {
    std::size_t const h = hq / (later.size() / in.H());
    row z;
    for (std::size_t j = begin; j < end; ++j) {
      row const k = token_row(in.keys, h, j);
      z.push_back(scale * dot(k, later[hq].mean));
      if (covariance) z.back() += scale * scale / 2 * dot(k, multiply(later[hq].covariance, k));
    }
    row const a = softmax(z);
    for (std::size_t j = 0; j < a.size(); ++j)
      out[h][j] += a[j] / (static_cast<double>(later.size()) / static_cast<double>(in.H()));
  }
  for (std::size_t h = 0; h < out.size() && norms; ++h)
    for (std::size_t j = begin; j < end; ++j)
      out[h][j - begin] = (out[h][j - begin] + epsilon) * norm(token_row(in.values, h, j));
  return out;
}

/// CapKV's of tokens [begin, end): w·vᵀ(I + Σ w·v·vᵀ)⁻¹·v, w = exp(τ·(cosine of key and mean query − the largest)).
inline rows value_capacity(layer const& in, std::vector<moments> const& later, std::size_t begin, std::size_t end,
                           double sharpness) {
  std::size_t const G = later.size() / in.H();
  rows out(in.H(), row(end - begin, 0.0));
  for (std::size_t hq = 0; hq < later.size(); ++hq) {
    std::size_t const h = hq / G;
    row cosines;
    for (std::size_t j = begin; j < end; ++j) {
      row const k = token_row(in.keys, h, j);
      cosines.push_back(dot(k, later[hq].mean) / norm(k) / norm(later[hq].mean));
    }
    double const most = *std::max_element(cosines.begin(), cosines.end());
    rows weighed;
    for (std::size_t j = begin; j < end; ++j) {
      weighed.push_back(token_row(in.values, h, j));
      for (double& x : weighed.back()) x *= std::exp(sharpness / 2 * (cosines[j - begin] - most));
    }
    row const each = leverage_of(weighed, 0, 1);
    for (std::size_t j = 0; j < each.size(); ++j) out[h][j] += each[j] / static_cast<double>(G);
  }
  return out;
}

}  // namespace reference
