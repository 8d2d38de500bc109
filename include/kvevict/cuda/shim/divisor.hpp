// SPDX-License-Identifier: Apache-2.0
// Division by a number that the host knows before a kernel starts.
#pragma once

#include <cstdint>

#include <kvevict/cuda/shim/platform.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// ⌊n / d⌋ for 0 ≤ n < 2³¹ as ⌊n·m / 2^(31+l)⌋ with m = ⌊2^(31+l) / d⌋ + 1 and the least l that makes 2^l ≥ d: then m·d
/// exceeds 2^(31+l) by at most 2^l, which suffices (Granlund and Montgomery, Division by invariant integers using
/// multiplication, 1994, theorem 4.2), and m fits 32 bits. A device has no instruction that divides integers: it needs
/// about 20 in place of these three.
class divisor {
 public:
  explicit divisor(std::int32_t d) {
    while ((std::int64_t{1} << shift_) < d) ++shift_;
    multiplier_ = static_cast<std::uint32_t>((std::uint64_t{1} << (31 + shift_)) / static_cast<std::uint32_t>(d) + 1);
  }
  KVEVICT_HOST_DEVICE std::int32_t operator()(std::int32_t n) const {
    std::uint64_t const product = std::uint64_t{static_cast<std::uint32_t>(n) * 2} * multiplier_;
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(product >> 32) >> shift_);
  }

 private:
  std::uint32_t multiplier_ = 0, shift_ = 0;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
