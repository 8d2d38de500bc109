// SPDX-License-Identifier: Apache-2.0
// How evenly a sum is spread over numbers: entropy in whole-number arithmetic, the same bits in every context.
#pragma once

#include <cstdint>

#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace spread {

inline constexpr int fraction_bits = 20;

/// log2 of x ≥ 1 in steps of 2⁻²⁰, rounded down: the bits of the mantissa's logarithm, one for each squaring.
KVEVICT_HOST_DEVICE constexpr std::int64_t log2_steps(std::uint64_t x) {
  int whole = 0;
  for (std::uint64_t rest = x; rest > 1; rest /= 2) ++whole;
  std::uint64_t mantissa = whole > 31 ? x >> (whole - 31) : x << (31 - whole);  // 2³¹ … 2³² − 1
  std::int64_t steps = std::int64_t{whole} << fraction_bits;
  for (int bit = fraction_bits - 1; bit >= 0; --bit) {
    mantissa = mantissa * mantissa >> 31;
    if (mantissa >> 32 == 0) continue;
    mantissa /= 2, steps += std::int64_t{1} << bit;
  }
  return steps;
}

/// −p·log2 p of p in [0, 1], in steps of 2⁻³².
KVEVICT_HOST_DEVICE constexpr std::int64_t part(float p) {
  auto const whole = static_cast<std::uint64_t>(static_cast<double>(p) * 4294967296.0);
  if (whole == 0) return 0;
  std::int64_t const bits = (std::int64_t{32} << fraction_bits) - log2_steps(whole);  // of −log2 p
  return bits <= 0 ? 0 : static_cast<std::int64_t>(whole) * bits >> fraction_bits;
}

/// Σ of parts over `count` numbers ≥ 2 as a share of the most that it can be: 1 where all are equal, 0 where one has
/// all.
KVEVICT_HOST_DEVICE constexpr float share(std::int64_t parts, std::int32_t count) {
  std::int64_t const most = log2_steps(static_cast<std::uint64_t>(count));
  return static_cast<float>(static_cast<double>(parts) / static_cast<double>(most << (32 - fraction_bits)));
}

}  // namespace spread
}  // namespace KVEVICT_ABI
}  // namespace kvevict
