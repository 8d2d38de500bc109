// SPDX-License-Identifier: Apache-2.0
// Scores and ranks as unsigned integers of the same order, which radix selection reads digit by digit.
#pragma once

#include <cstdint>
#include <cstring>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// −0 counts as +0. Total also over values that are not finite, so that nothing depends on their absence. No float has
/// key 0.
KVEVICT_HOST_DEVICE inline std::uint32_t order_key(float x) {
  std::uint32_t u = 0;
  static_assert(sizeof u == sizeof x, "a float has 32 bits");
  std::memcpy(&u, &x, sizeof u);
  std::uint32_t const sign = 0u - (u >> 31);  // all bits of it
  return (u ^ (sign | 0x80000000u)) - sign;
}
/// The float with that key: +0 of −0's.
KVEVICT_HOST_DEVICE inline float float_of_key(std::uint32_t key) {
  std::uint32_t const u = (key & 0x80000000u) != 0 ? key ^ 0x80000000u : 0u - key;
  float x = 0;
  std::memcpy(&x, &u, sizeof x);
  return x;
}
constexpr std::uint32_t order_key(std::int32_t x) { return static_cast<std::uint32_t>(x) ^ 0x80000000u; }

/// The integer with that key.
constexpr std::int32_t integer_of_key(std::uint32_t key) { return static_cast<std::int32_t>(key ^ 0x80000000u); }

/// The key of a finite float.
constexpr bool is_key_of_finite(std::uint32_t key) { return key < 0xff800000u && key - 1u >= 0x00800000u; }

}  // namespace KVEVICT_ABI
}  // namespace kvevict
