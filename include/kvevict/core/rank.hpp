// SPDX-License-Identifier: Apache-2.0
// The number of a rank, without sorting.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The number of rank k among n, 0 ≤ k < n, the smallest of which has rank 0; equal ones have ranks in turn.
///
/// Cuts the interval of values where the rank would lie if they were evenly spread, and in the middle every second
/// time, until the cut is a neighbour of the number.
/// Cost     a few passes, at most 64, without branches or scratch: of a permutation three, of its ends one.
inline std::int32_t number_of_rank(std::int32_t const* x, std::int32_t n, std::int32_t k) {
  std::int32_t least = x[0], most = x[0];
  for (std::int32_t i = 1; i < n; ++i) least = std::min(least, x[i]), most = std::max(most, x[i]);
  if (k == 0) return least;
  if (k == n - 1) return most;
  std::int64_t low = least, high = most;
  std::int32_t below = 0, reached = n;  // numbers < low, numbers ≤ high
  for (bool middle = false; low < high; middle = !middle) {
    std::int64_t const span = high - low;
    auto const cut = static_cast<std::int32_t>(low + (middle ? span / 2 : span * (k - below) / (reached - below)));
    std::int32_t count = 0;
    for (std::int32_t i = 0; i < n; ++i) count += x[i] <= cut;
    if (count == k || count == k + 1) {  // the number next to the cut: behind it, or up to it
      auto const at = static_cast<std::uint32_t>(cut);
      std::uint32_t nearest = ~std::uint32_t{0};  // those of the other side are farther, as distances are modulo 2³²
      if (count == k) {
        for (std::int32_t i = 0; i < n; ++i) nearest = std::min(nearest, static_cast<std::uint32_t>(x[i]) - at - 1);
        return static_cast<std::int32_t>(at + 1 + nearest);
      }
      for (std::int32_t i = 0; i < n; ++i) nearest = std::min(nearest, at - static_cast<std::uint32_t>(x[i]));
      return static_cast<std::int32_t>(at - nearest);
    }
    if (count > k)
      high = cut, reached = count;
    else
      low = std::int64_t{cut} + 1, below = count;
  }
  return static_cast<std::int32_t>(low);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
