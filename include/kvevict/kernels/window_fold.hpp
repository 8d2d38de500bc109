// SPDX-License-Identifier: Apache-2.0
// What a fold of a window's weights is handed, and what it must have.
#pragma once

#include <concepts>
#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/host_device.hpp>
#include <kvevict/kernels/expect_window.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// A token's weight in one window row, and what a fold may want to know of the two. Weights of 0 are not handed over.
struct window_weight {
  float weight;
  float lse;  // natural, of the row: ln(weight) + lse is the logit; NaN of softmax rows
  float distance;  // ‖v − o‖² of the token's value and the row's output Σ_j weight_j·v_j, for folds that read outputs
};

/// How many floats are kept for a token and a query head, and how those of different rows meet: by addition.
template <std::int32_t N> struct fold_by_sums {
  static constexpr std::int32_t sums = N;

  KVEVICT_HOST_DEVICE void merge(float const (&other)[N], float (&to)[N]) const {
    for (std::int32_t i = 0; i < N; ++i) to[i] += other[i];
  }
};

/// The variance (÷ n) of a token's weights in n rows, from their sum and that of their squares; 0 where it is no more
/// than what rounding makes of weights that are equal, (3n + 4)·2⁻²⁴ of their mean square.
KVEVICT_HOST_DEVICE inline float variance_of(float sum, float squares, std::int32_t rows) {
  auto const n = static_cast<float>(rows < 1 ? 1 : rows);
  float const mean = sum / n, mean_square = squares / n, variance = mean_square - mean * mean;
  return variance <= (3 * n + 4) * 0x1p-24f * mean_square ? 0.0f : variance;
}

/// A fold: of every token and query head `sums` floats, zeros at first, to which the weights of the window rows are
/// added, whose parts are merged, and from which a number comes at last. Its functions are KVEVICT_HOST_DEVICE.
template <class F>
concept window_fold = requires(F const& f, window_weight const& x, float (&to)[F::sums]) {
  f.add(x, to);
  f.merge(to, to);
  { f.finish(to, std::int32_t{}) } -> std::convertible_to<float>;  // of so many rows
  { f.reads_outputs() } -> std::convertible_to<bool>;
};

inline constexpr std::int32_t widest_row_pool = 33;

/// How much one of the tokens [first, last) counts in the sum of their average-pooled weights: as many of them hold it,
/// ÷ width.
KVEVICT_HOST_DEVICE inline float pooled_share(std::int64_t token, std::int64_t first, std::int64_t last,
                                              std::int32_t width) {
  std::int64_t const half = width / 2, from = token < first + half ? first : token - half,
                     to = token + half < last ? token + half : last - 1;
  return static_cast<float>(to - from + 1) / static_cast<float>(width);
}

/// Scores are not pooled here, no row has a gain, and rows are pooled where outputs are not read.
inline void expect_fold(window_options const& o, bool reads_outputs) {
  expect_pooling(o.pool_each_row);
  KVEVICT_EXPECTS(
      o.pool_each_row.width == 1 ||
          (o.pool_each_row.kind == pooling::average && !reads_outputs && o.pool_each_row.width <= widest_row_pool),
      "fold_window: rows are pooled by average, up to ", widest_row_pool, " wide, for folds that read no outputs");
  KVEVICT_EXPECTS(o.pool.width == 1 && o.pool_before_group.width == 1 && o.weights == weighting::softmax &&
                      o.place == row_place::in_cache,
                  "fold_window: folds read the model's softmax of rows in the cache, and pool nothing; leave pools, "
                  "weights and place as they are by default");
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
