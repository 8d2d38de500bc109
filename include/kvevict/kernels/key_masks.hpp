// SPDX-License-Identifier: Apache-2.0
// Which of 64 neighbouring scores are better than a key, as bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/order_key.hpp>
#include <kvevict/kernels/bits.hpp>
#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
namespace select {

/// Bit i is the sign of lane i: of a comparison, whether it holds.
inline std::uint32_t sign_bits(ivec v) {
#if defined(KVEVICT_WIDE_LANES)
  return static_cast<std::uint32_t>(_mm512_movepi32_mask(reinterpret_cast<__m512i>(v)));
#elif defined(__AVX__)
  return static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(v)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(v)));
#else
  std::uint32_t out = 0;
  for (int i = 0; i < lanes; ++i) out |= static_cast<std::uint32_t>(v[i] < 0) << i;
  return out;
#endif
}

/// Keys of `lanes` scores as signed numbers, which every instruction set compares.
inline ivec signed_keys(float const* x) {
  ivec const u = bits_of(load(x)), sign = u >> 31;
  return ((u & 0x7fffffff) ^ sign) - sign;
}

/// Bit i is order_key(x[i]) > key, for i < n; 0 ≤ n, and of 64 scores at most.
[[gnu::always_inline]] inline std::uint64_t above(float const* x, std::int64_t n, std::uint32_t key) {
  std::uint64_t out = 0;
  if (n >= 64) {
    std::int32_t const limit = integer_of_key(key);
    unroll<64 / lanes>(
        [&](auto i) { out |= std::uint64_t{sign_bits(signed_keys(x + i * lanes) > limit)} << (i * lanes); });
  } else {
    for (std::int64_t i = 0; i < n; ++i) out |= std::uint64_t{order_key(x[i]) > key} << i;
  }
  return out;
}
/// Bit i is order_key(x[i]) == key. No score has key 0.
[[gnu::always_inline]] inline std::uint64_t equal(float const* x, std::int64_t n, std::uint32_t key) {
  return above(x, n, key - 1) & ~above(x, n, key);
}

inline std::int64_t count_above(float const* x, std::int64_t n, std::uint32_t key) {
  std::int64_t out = 0;
  for (std::int64_t i = 0; i < n; i += 64) out += bit_count(above(x + i, n - i, key));
  return out;
}

}  // namespace select
}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
