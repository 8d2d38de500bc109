// SPDX-License-Identifier: Apache-2.0
// Exact division of a whole into integers: the one rounding that heads and layers share.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// `exact`: largest remainder, the sum is what was asked for. `authors`: the published code's own rounding, for parity
/// only.
enum class rounding : std::uint8_t { exact, authors };

namespace apportioning {

/// The index that comes after `last` in the order (remainder descending, index ascending); −1 starts and ends the
/// order.
constexpr std::int64_t next(std::int64_t const* numerators, std::int64_t denominator, std::int64_t n,
                            std::int64_t last) {
  std::int64_t best = -1;
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t const r = numerators[i] % denominator;
    if (last >= 0) {
      std::int64_t const seen = numerators[last] % denominator;
      if (r > seen || (r == seen && i <= last)) continue;
    }
    if (best < 0 || r > numerators[best] % denominator) best = i;
  }
  return best;
}

}  // namespace apportioning

/// shares[i] = ⌊numerators[i]/denominator⌋, then one more to each of the largest remainders (ties: lower index) until
/// the shares sum to `total` = Σ numerators / denominator, which must be whole. A share above caps[i] is cut to it, and
/// what was cut goes, one at a time in the same cyclic order, to the shares that still have room. Σ caps ≥ total.
/// O(n²), no allocation.
constexpr void apportion(std::int64_t const* numerators, std::int64_t denominator, std::int64_t const* caps,
                         std::int64_t n, std::int64_t total, std::int64_t* shares) {
  std::int64_t left = total;
  for (std::int64_t i = 0; i < n; ++i) left -= shares[i] = numerators[i] / denominator;
  for (std::int64_t i = -1; left > 0; --left) ++shares[i = apportioning::next(numerators, denominator, n, i)];
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t const cut = std::max<std::int64_t>(0, shares[i] - caps[i]);
    left += cut;
    shares[i] -= cut;
  }
  while (left > 0) {  // whole rounds first, as many as fit, then single tokens in order
    std::int64_t open = 0, room = left;
    for (std::int64_t i = 0; i < n; ++i)
      if (shares[i] < caps[i]) ++open, room = std::min(room, caps[i] - shares[i]);
    if (open == 0) return;
    if (std::int64_t const each = std::min(room, left / open); each > 0) {
      for (std::int64_t i = 0; i < n; ++i)
        if (shares[i] < caps[i]) shares[i] += each, left -= each;
    } else {
      for (std::int64_t i = -1; left > 0 && (i = apportioning::next(numerators, denominator, n, i)) >= 0;)
        if (shares[i] < caps[i]) ++shares[i], --left;
    }
  }
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
