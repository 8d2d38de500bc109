// SPDX-License-Identifier: Apache-2.0
// Where the k best of n scores end: a sample says about where, and only what lies there is looked at closely.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/bits.hpp>
#include <kvevict/kernels/key_masks.hpp>
#include <kvevict/kernels/radix.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
namespace select {

/// Two keys between which the k-th best of n scores lies, but for bad luck.
struct bracket {
  std::uint32_t low, high;
};

/// Of fewer scores a sample costs as much as it saves.
inline constexpr std::int64_t least_sampled = 4096;

/// The larger, the longer it takes to look at, and the fewer scores are left inside the bracket.
inline std::int64_t sample_size(std::int64_t n) {
  return static_cast<std::int64_t>(8 * __builtin_sqrt(static_cast<double>(n)));
}

/// The place of the i-th sampled one of n scores: spread evenly (multiples of the golden ratio), without a period.
inline std::int64_t sampled(std::int64_t i, std::int64_t n) {
  return std::int64_t{static_cast<std::uint32_t>(i) * 0x9e3779b1u} * n >> 32;
}
/// `size` of n scores, as keys.
inline void take_sample(float const* x, std::int64_t n, std::int64_t size, std::uint32_t* keys) {
  for (std::int64_t i = 0; i < size; ++i) keys[i] = order_key(x[sampled(i, n)]);
}

/// Three deviations around the k-th of n, from a sample of them, which is not empty, is overwritten and has room for
/// itself twice.
inline bracket around(std::uint32_t* sample, std::int64_t size, std::int64_t n, std::int64_t k, std::uint32_t* counts) {
  double const part = static_cast<double>(k) / static_cast<double>(n), at = part * static_cast<double>(size);
  auto const margin = static_cast<std::int64_t>(3 * __builtin_sqrt(at * (1 - part))) + 1;
  std::int64_t const high = static_cast<std::int64_t>(at) - margin,
                     low = std::min(static_cast<std::int64_t>(at) + margin + 1, size);
  kvevict::copy_n(sample, size, sample + size);
  radix::cut const end = radix::best(sample + size, size, low, counts);
  bracket out{low < size ? end.key : 0, ~0u};
  if (high > low - end.take)
    out.high = end.key;  // equal scores from end to end
  else if (high >= 1)
    out.high = radix::best(sample, size, high, counts).key;
  return out;
}

/// Counts the scores that are `high` or better, and writes the keys of those strictly inside the bracket.
struct inside {
  std::int64_t from_high = 0, size = 0;

  inside(float const* x, std::int64_t n, bracket b, std::uint32_t* keys) {
    for (std::int64_t i = 0; i < n; i += 64) {
      std::uint64_t const high = above(x + i, n - i, b.high - 1);
      from_high += bit_count(high);
      for (std::uint64_t in = above(x + i, n - i, b.low) & ~high; in != 0; in &= in - 1)
        keys[size++] = order_key(x[i + lowest_bit(in)]);
    }
  }
};

/// 1 ≤ k ≤ n; `keys` has n elements, `counts` table_size.
inline radix::cut best_of_scores(float const* x, std::int64_t n, std::int64_t k, key_bracket const& known,
                                 std::uint32_t* keys, std::uint32_t* counts) {
  if (n >= least_sampled) {
    bracket b{known.low, known.high};
    if (k <= known.from_high || k > known.above_low) {
      std::int64_t const size = sample_size(n);
      take_sample(x, n, size, keys);
      b = around(keys, size, n, k, counts);
    }
    inside const in(x, n, b, keys);
    std::int64_t const before_low = in.from_high + in.size;
    if (k > in.from_high && k <= before_low) return radix::best(keys, in.size, k - in.from_high, counts);
    // many equal scores lie at an end of the bracket
    std::uint32_t const end = k <= before_low ? b.high : b.low;
    std::int64_t const beyond = k <= before_low ? count_above(x, n, end) : before_low,
                       reached = k <= before_low ? in.from_high : count_above(x, n, end - 1);
    if (k > beyond && k <= reached) return {end, k - beyond, reached - beyond};
  }
  for (std::int64_t i = 0; i < n; ++i) keys[i] = order_key(x[i]);
  return radix::best(keys, n, k, counts);
}

}  // namespace select
}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
