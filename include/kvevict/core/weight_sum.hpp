// SPDX-License-Identifier: Apache-2.0
// What the weights of a query row add up to, and how far from one an honest LSE may bring them.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/core/dtype.hpp>
#include <kvevict/core/host_device.hpp>
#include <kvevict/core/queries.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Sums of weights in steps of 2⁻³²: whole numbers, so that the order of additions changes nothing.
namespace weight_sum {

inline constexpr std::int64_t not_a_number = std::int64_t{1} << 62;  // a bit that no sum reaches

/// A part of a sum. More than 16 counts as 16, so that no number of parts overflows.
KVEVICT_HOST_DEVICE inline std::int64_t part_of(float x) {
  if (x != x) return not_a_number;
  return static_cast<std::int64_t>((x < 16 ? static_cast<double>(x) : 16.0) * 4294967296.0);
}
KVEVICT_HOST_DEVICE inline double value_of(std::int64_t sum) { return static_cast<double>(sum) / 4294967296.0; }

/// A sum that is sound by every tolerance, and no NaN's.
KVEVICT_HOST_DEVICE constexpr bool is_near_one(std::int64_t sum, row_sum expected) {
  constexpr std::int64_t one = std::int64_t{1} << 32, near = one >> 11;
  return sum <= one + near && (expected == row_sum::at_most_one ? sum >= 0 : sum >= one - near);
}

/// Largest relative error of a number that is rounded to that type.
KVEVICT_HOST_DEVICE constexpr double unit_of(dtype type) {
  return type == dtype::bf16 ? 0x1p-9 : type == dtype::f16 ? 0x1p-12 : 0.0;
}

/// The same of keys that an engine may have multiplied before it stored them: half a step of codes, relative to the
/// largest one of their scale.
KVEVICT_HOST_DEVICE constexpr double stored_unit_of(dtype type) {
  switch (type) {
    case dtype::i8:
    case dtype::u8: return 0x1p-8;
    case dtype::fp8_e5m2: return 0x1p-3;
    case dtype::fp8_e4m3:
    case dtype::i4:
    case dtype::u4:
    case dtype::opaque: return 0x1p-4;
    default: return unit_of(type);
  }
}

/// |ln Σ| that is accepted without a look at the keys; `lse` in base e.
KVEVICT_HOST_DEVICE inline double least_tolerance(dtype keys, dtype queries, double lse) {
  return 1e-3 + 8 * (unit_of(keys) + unit_of(queries)) + 0x1p-22 * std::fabs(lse);
}
/// ‖k‖² of the largest key that counts for a tolerance: infinite ones do not.
inline constexpr float largest_key = 1e38f;
/// What is added where no logit's products add up to more than `bound`: an element that is stored as bf16 is off by
/// 2⁻⁹ of itself, as e4m3 by 2⁻⁴, and a sum of D products in float by (D + 8)·2⁻²⁴. Nothing is added where the query is
/// infinite: no rounding makes up for that.
KVEVICT_HOST_DEVICE inline double tolerance_of_logits(dtype keys, dtype queries, std::int32_t head_dim, double bound) {
  bool const finite = bound <= 1e300;
  return finite ? (stored_unit_of(keys) + unit_of(queries) + (head_dim + 8) * 0x1p-24) * bound : 0;
}
/// Whether a sum is sound by a tolerance of its logarithm.
KVEVICT_HOST_DEVICE inline bool is_sound(double sum, row_sum expected, double tolerance) {
  return sum <= std::exp(tolerance) && (expected == row_sum::at_most_one || (sum > 0 && sum >= std::exp(-tolerance)));
}

}  // namespace weight_sum
}  // namespace KVEVICT_ABI
}  // namespace kvevict
