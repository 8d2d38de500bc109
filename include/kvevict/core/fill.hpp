// SPDX-License-Identifier: Apache-2.0
// Filling and copying of numbers. std's functions have one name in all units, and the linker may take the copy of a
// unit with a larger instruction set; these are this unit's own. So are __builtin_sqrtf, which std::sqrt calls, and its
// like for infinity and isfinite. The library gives std::max, std::min and numeric_limits no floats where it runs
// (tests/flags/shared.py looks for them); only what has vectors of floats on the host (measure/, engines/llama.hpp)
// shares std's code for those.
#pragma once

#include <cstdint>
#include <cstring>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// n times x from `to` on.
template <class T, class X> void fill_n(T* to, std::int64_t n, X x) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = x;
}
/// x in [first, last).
template <class T, class X> void fill(T* first, T* last, X x) { fill_n(first, last - first, x); }
/// n numbers; the two ranges do not overlap.
template <class T> void copy_n(T const* from, std::int64_t n, T* to) {
  if (n > 0) std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
