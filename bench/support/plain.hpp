// SPDX-License-Identifier: Apache-2.0
// Pieces of work by the plainest loops, by std::nth_element and by plain Eigen, on dense arrays: what kernels are
// checked and compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include <Eigen/Core>

namespace bench::plain {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows_of = Eigen::Map<matrix const>;  // keys or values (N,D) of a head

/// Mean over the G heads of a group and sum over their last `rows` query rows of causal softmax weights; keys (N,D).
/// → (N) query(i, g) is row i of head g. With an LSE other than 0 the weights are exp(z − lse), with a
/// budget logits are multiplied by AhaKV's gain.
template <class Number, class Query>
std::vector<Number> attention(float const* keys, std::int32_t N, std::int32_t D, std::int32_t rows, std::int32_t G,
                              Query query, float lse = 0, std::int32_t budget = 0) {
  std::vector<Number> out(std::size_t(N), Number(0)), z(std::size_t(N), Number(0));
  for (std::int32_t g = 0; g < G; ++g)
    for (std::int32_t i = 0; i < rows; ++i) {
      std::int32_t const seen = N - rows + i + 1;
      float const* q = query(i, g);
      Number const gain = budget == 0 ? Number(1) : Number(std::sqrt(2 * std::log(double(seen) / budget)));
      Number top = Number(-1e30), sum = Number(0);
      for (std::int32_t j = 0; j < seen; ++j) {
        Number dot = 0;
        for (std::int32_t d = 0; d < D; ++d)
          dot += Number(q[d]) * Number(keys[std::size_t(j) * std::size_t(D) + std::size_t(d)]);
        z[std::size_t(j)] = dot * gain / Number(std::sqrt(double(D)));
        top = std::max(top, z[std::size_t(j)]);
      }
      if (lse != 0) top = Number(lse);
      for (std::int32_t j = 0; j < seen; ++j) sum += z[std::size_t(j)] = std::exp(z[std::size_t(j)] - top);
      if (lse != 0) sum = 1;
      for (std::int32_t j = 0; j < seen; ++j) out[std::size_t(j)] += z[std::size_t(j)] / sum / Number(G);
    }
  return out;
}

/// The same as a mean over the rows, by one product for a KV head, with all its logits kept, and array expressions.
class eigen_attention {
 public:
  eigen_attention(std::int32_t N, std::int32_t D, std::int32_t rows, std::int32_t G)
      : W_(rows), Q_(G * rows, D), Z_(G * rows, N), out_(N) {}

  template <class Query> Eigen::RowVectorXf const& operator()(float const* keys, Query query) {
    for (Eigen::Index r = 0; r < Q_.rows(); ++r)
      Q_.row(r) = Eigen::Map<Eigen::RowVectorXf const>(query(std::int32_t(r) % W_, std::int32_t(r) / W_), Q_.cols());
    Z_.noalias() = Q_ * rows_of(keys, Z_.cols(), Q_.cols()).transpose();
    Z_ *= 1 / std::sqrt(float(Q_.cols()));
    for (Eigen::Index r = 0; r < Q_.rows(); ++r)
      Z_.row(r).tail(W_ - 1 - r % W_).setConstant(-std::numeric_limits<float>::infinity());
    Z_.colwise() -= Z_.rowwise().maxCoeff().eval();
    Z_ = Z_.array().exp();
    out_.noalias() = (Z_.rowwise().sum().cwiseInverse() / float(Z_.rows())).transpose() * Z_;
    return out_;
  }

 private:
  std::int32_t W_;
  matrix Q_, Z_;
  Eigen::RowVectorXf out_;
};

/// 1/width · Σ over |i − j| ≤ width/2 of x(i); what is outside counts as 0.  → (n)
template <class Number> std::vector<Number> average(float const* x, std::int64_t n, std::int64_t width) {
  std::vector<Number> out(std::size_t(n), Number(0));
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = std::max<std::int64_t>(0, j - width / 2); i < std::min(n, j + width / 2 + 1); ++i)
      out[std::size_t(j)] += Number(x[i]) / Number(width);
  return out;
}

/// Σ_d x(j,d)² of n rows.
template <class Number> void squared_norms(float const* x, std::int64_t n, std::int32_t D, Number* out) {
  for (std::int64_t j = 0; j < n; ++j, x += D) {
    Number sum = 0;
    for (std::int32_t d = 0; d < D; ++d) sum += Number(x[d]) * Number(x[d]);
    out[j] = sum;
  }
}

/// −cos(k_j, mean of k/‖k‖) of keys (N,D), which are divided by their lengths.  → (N)
template <class Number> std::vector<Number> diversity(std::vector<Number>& keys, std::int32_t D) {
  auto const width = std::size_t(D), N = keys.size() / width;
  std::vector<Number> mean(width), out(N);
  for (std::size_t j = 0; j < N; ++j) {
    Number* const x = keys.data() + j * width;
    Number const length = std::sqrt(std::inner_product(x, x + D, x, Number(0)));
    for (std::size_t d = 0; d < width; ++d) x[d] /= length, mean[d] += x[d];
  }
  Number const length = std::sqrt(std::inner_product(mean.begin(), mean.end(), mean.begin(), Number(0)));
  for (std::size_t j = 0; j < N; ++j)
    out[j] = -std::inner_product(mean.begin(), mean.end(), keys.data() + j * width, Number(0)) / length;
  return out;
}

/// The k best of n by nth_element on indices, ascending; of equal ones the last.
inline std::vector<std::int32_t> best(float const* x, std::int32_t n, std::int64_t k) {
  std::vector<std::int32_t> index(std::size_t(n), 0);
  std::iota(index.begin(), index.end(), 0);
  std::nth_element(index.begin(), index.begin() + k, index.end(),
                   [&](auto a, auto b) { return x[a] > x[b] || (x[a] == x[b] && a > b); });
  index.resize(std::size_t(k));
  std::sort(index.begin(), index.end());
  return index;
}

/// The k best of a layer's H heads together, h·N + j ascending, the `forced` best of every head among them.
inline std::vector<std::int32_t> best_of_layer(float const* x, std::int32_t H, std::int32_t N, std::int64_t k,
                                               std::int64_t forced) {
  std::vector<float> scores(x, x + std::int64_t{H} * N);
  for (std::int64_t h = 0; h < H; ++h)
    for (std::int32_t const j : best(x + h * N, N, forced))
      scores[std::size_t(h * N + j)] = std::numeric_limits<float>::max();
  return best(scores.data(), H * N, k);
}

}  // namespace bench::plain
