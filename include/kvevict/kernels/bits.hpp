// SPDX-License-Identifier: Apache-2.0
// Counts of bits. Those of <bit> will not do: units of other flags share them as functions, and the linker may take
// the one whose instructions an older machine lacks.
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// How many bits are set.
constexpr std::int32_t bit_count(std::uint64_t x) { return __builtin_popcountll(x); }
/// Index of the lowest bit that is set; 64 of 0.
constexpr std::int32_t lowest_bit(std::uint64_t x) { return x == 0 ? 64 : __builtin_ctzll(x); }
/// 1 + the index of the highest bit that is set; 0 of 0.
constexpr std::int32_t bit_width(std::uint64_t x) { return x == 0 ? 0 : 64 - __builtin_clzll(x); }

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
