// SPDX-License-Identifier: Apache-2.0
// The entropy of scores from a histogram, in integers: the same in every context, whatever the order of sums.
#pragma once

#include <cstdint>

#include <kvevict/core/order_key.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score_histogram {

/// A bucket is a score's sign, exponent and two leading bits of its fraction; those above 0 come from `positive` on.
inline constexpr std::int32_t buckets = 2048, positive = 1024;
constexpr std::uint32_t bucket_of(std::uint32_t key) { return key >> 21; }

/// ⌊log2(x)·2¹⁰⌋ for x ≥ 1, to within 2 units.
constexpr std::int64_t log2_of(std::uint64_t x) {
  std::int64_t whole = 0;
  for (std::uint64_t y = x; y > 1; y >>= 1) ++whole;
  std::uint64_t m = whole > 31 ? x >> (whole - 31) : x << (31 - whole);  // in [2³¹, 2³²)
  std::int64_t out = whole << 10;
  for (std::int64_t bit = 1 << 9; bit > 0; bit >>= 1) {
    m = (m * m) >> 31;
    if (m >> 32 != 0) m >>= 1, out |= bit;
  }
  return out;
}

/// −Σ p·log2(p) in units of 2⁻¹⁰ bits, p(j) = v(j)/Σ v, 0 where there is no score above 0. v is the middle of a score's
/// bucket in units of 2⁻¹⁹ of the largest score's power of two; scores below 2⁻¹⁶ of it, and those that are not above
/// 0, take no part. count(bucket): below 2²⁹ in all.
template <class Count> constexpr std::int64_t entropy_of(Count const& count) {
  std::int32_t top = buckets - 1;
  while (top >= positive && count(top) == 0) --top;
  if (top < positive) return 0;
  std::int32_t const highest = (top - positive) >> 2;  // exponents
  std::uint64_t sum = 0, weighted = 0;
  for (std::int32_t b = top; b >= positive && highest - ((b - positive) >> 2) <= 16; --b) {
    auto const n = static_cast<std::uint64_t>(count(b));
    if (n == 0) continue;
    std::uint64_t const v = (9 + 2 * static_cast<std::uint64_t>(b & 3)) << (16 - (highest - ((b - positive) >> 2)));
    sum += n * v, weighted += n * v * static_cast<std::uint64_t>(log2_of(v));
  }
  std::int64_t const out = log2_of(sum) - static_cast<std::int64_t>(weighted / sum);
  return out > 0 ? out : 0;
}

}  // namespace score_histogram
}  // namespace KVEVICT_ABI
}  // namespace kvevict
