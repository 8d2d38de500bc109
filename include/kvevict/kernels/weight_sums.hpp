// SPDX-License-Identifier: Apache-2.0
// Whether an engine's LSE belongs to the logits: the weights of every query row are added up.
#pragma once

#include <algorithm>
#include <cmath>

#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/weight_sum.hpp>
#include <kvevict/kernels/tile.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Sums of weights of query rows; workers add parts in any order.
class weight_sums {
 public:
  static constexpr std::int64_t bytes(std::int64_t rows) { return padded(rows * 8, 64); }
  weight_sums() = default;
  weight_sums(frame& scratch, std::int64_t rows) : sums_(scratch.allocate<std::int64_t>(rows)) {
    kvevict::fill_n(sums_, rows, std::int64_t{0});
  }
  weight_sums from(std::int64_t row) const {
    weight_sums out;
    out.sums_ = sums_ + row;
    return out;
  }

  void add(std::int64_t row, float x) const {
    if (std::int64_t const part = weight_sum::part_of(x); part == weight_sum::not_a_number)
      __atomic_fetch_or(sums_ + row, part, __ATOMIC_RELAXED);
    else
      __atomic_fetch_add(sums_ + row, part, __ATOMIC_RELAXED);
  }
  std::int64_t operator[](std::int64_t row) const { return sums_[row]; }

 private:
  using aligned_sum [[gnu::aligned(8)]] = std::int64_t;  // 32-bit code aligns it to 4, where atomics need a library

  aligned_sum* sums_ = nullptr;
};

/// Running sums of the rows of a query block, a vector each, of whole row blocks; then their parts.
inline void take_parts(float const* running, std::int32_t rows, weight_sums const& to) {
  for (std::int32_t r = 0; r < rows; r += row_block) {
    vec x[row_block];
    float sums[lanes];
    unroll<row_block>([&](auto i) { x[i] = load(running + (r + i) * lanes); });
    store(sums, reduce<row_block>(x, kernels::add{}));
    for (std::int32_t i = 0; i < std::min(row_block, rows - r); ++i) to.add(r + i, sums[i * (lanes / row_block)]);
  }
}

/// max ‖k_j‖ of a row of the cache, of keys up to largest_key: what lies where no row looks may be anything. `tile`:
/// tile_floats(D) of scratch.
template <class Entry>
double largest_norm(layer_view<Entry> const& view, std::int32_t b, std::int32_t h, std::int64_t tokens, float* tile) {
  float largest = 0;
  for (std::int64_t t = 0; t < tokens; t += tile_tokens) {
    pack_keys(view, b, h, t, tokens, tile);
    for (int v = 0; v < tile_tokens; v += lanes) {
      vec squares = {};
      for (std::int64_t d = 0; d < view.key_width(); ++d) {
        vec const x = load(tile + d * tile_tokens + v);
        squares = multiply_add(x, x, squares);
      }
      for (int i = 0; i < lanes; ++i)
        if (squares[i] > largest && squares[i] <= weight_sum::largest_key) largest = squares[i];
    }
  }
  return std::sqrt(static_cast<double>(largest));
}

inline double norm_of(query_rows const& q, std::int64_t row, std::int64_t hq) {
  double squares = 0;
  auto const* const p =
      static_cast<std::byte const*>(q.data) + (row * q.token_stride + hq * q.head_stride) * size_of(q.type);
  with_type(q.type, [&](auto type) {
    using T = decltype(type);
    for (std::int32_t d = 0; d < q.head_dim; ++d) {
      T x;
      std::memcpy(&x, p + d * size_of(q.type), sizeof x);
      squares += static_cast<double>(to_float(x)) * static_cast<double>(to_float(x));
    }
  });
  return std::sqrt(squares);
}

/// Raises unless the weights of window rows [first, first + window) of query head hq add up to what is expected. Rows
/// that see nothing count for nothing, and what is not a number is found by its score.
///
/// Σ_j weight(j) within exp(±τ), or not above it:  τ = 10⁻³ + 8u + 2⁻²²·|lse| + (u + (D+8)·2⁻²⁴)·scale·‖q‖·max‖k‖,
/// u the unit roundoffs of K and Q (0 of f32); the keys are only looked at where the rest of τ does not suffice.
template <class Entry>
void expect_sums(layer_view<Entry> const& view, component const& keys, query_rows const& q, window_rows const& in,
                 std::int32_t first, std::int32_t window, std::int64_t hq, row const& of, row_sum expected,
                 weight_sums const& sums, float* tile, double& norm) {
  for (std::int32_t w = first; w < first + window; ++w) {
    std::int64_t const row = in.first + w, total = sums[w - first];
    if (q.sink_logits == nullptr && weight_sum::is_near_one(total, expected)) continue;
    float const given = q.lse[row * q.lse_token_stride + hq * q.lse_head_stride];
    if ((total & weight_sum::not_a_number) != 0 || given == -__builtin_inff() || in.sees_none(w)) continue;
    double const lse = static_cast<double>(given) * (q.base == log_base::two ? 0.69314718055994531 : 1.0);
    double sum = weight_sum::value_of(total);
    if (q.sink_logits != nullptr) sum += std::exp(static_cast<double>(q.sink_logits[hq]) - lse);
    double const least = weight_sum::least_tolerance(keys.type, q.type, lse);
    if (weight_sum::is_sound(sum, expected, least)) continue;
    if (norm < 0) norm = largest_norm(view, of.sequence, of.head, of.tokens, tile);
    double const bound = static_cast<double>(q.logit_scale()) * norm_of(q, row, hq) * norm;
    if (!weight_sum::is_sound(sum, expected,
                              least + weight_sum::tolerance_of_logits(keys.type, q.type, q.head_dim, bound)))
      messages::weight_sum(of.sequence, of.head, hq, row - q.first_row(of.sequence), sum, given, q.base);
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
