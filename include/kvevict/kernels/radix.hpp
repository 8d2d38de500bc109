// SPDX-License-Identifier: Apache-2.0
// Finding the k-th best of n keys without sorting: a histogram of the leading digit in which they differ, then
// refinement inside the boundary bucket alone.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include <kvevict/core/order_key.hpp>
#include <kvevict/kernels/bits.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
namespace radix {

/// Bits [shift, shift + width) of a key.
struct digit {
  int shift, width;
  constexpr std::uint32_t of(std::uint32_t k) const { return (k >> shift) & ((1u << width) - 1u); }
};
/// Three of them make a key, the leading one first.
inline constexpr digit digits[] = {{21, 11}, {10, 11}, {0, 10}};

inline constexpr std::int64_t buckets = 2048;
inline constexpr std::int64_t copies = 4;  // equal neighbours in one table would wait for each other's store
inline constexpr std::int64_t table_size = buckets * copies;

/// Bit i is f(i), 0 ≤ i < 64, in order; what f computes can be vectorised.
template <class F> std::uint64_t mask(F f) {
  std::uint8_t flags[64];
  for (std::int32_t i = 0; i < 64; ++i) flags[i] = f(i) ? 1 : 0;
  std::uint64_t bits = 0;
  for (std::int32_t i = 0; i < 8; ++i) {
    std::uint64_t eight = 0;  // one byte each; the product brings byte k to bit 56 + k
    if constexpr (std::endian::native == std::endian::little)
      std::memcpy(&eight, flags + 8 * i, 8);
    else
      for (std::int32_t k = 0; k < 8; ++k) eight |= std::uint64_t{flags[8 * i + k]} << (8 * k);
    bits |= (eight * 0x0102040810204080u >> 56) << (8 * i);
  }
  return bits;
}

/// counts[b] = keys whose digit is b; `counts` has table_size elements, of which the first ones are the result.
inline void count(std::uint32_t const* keys, std::int64_t n, digit d, std::uint32_t* counts) {
  std::int64_t const wide = n >= 2 * table_size ? n / copies : 0;
  std::memset(counts, 0, (wide > 0 ? table_size : std::size_t{1} << d.width) * sizeof *counts);
  for (std::int64_t i = 0; i < wide; ++i)
    for (std::int64_t copy = 0; copy < copies; ++copy) ++counts[copy * buckets + d.of(keys[i * copies + copy])];
  if (wide > 0)
    for (std::int64_t b = 0; b < buckets; ++b)
      counts[b] += counts[buckets + b] + counts[2 * buckets + b] + counts[3 * buckets + b];
  for (std::int64_t i = wide * copies; i < n; ++i) ++counts[d.of(keys[i])];
}

struct bucket {
  std::uint32_t index;
  std::int64_t above;  // keys in the buckets after it
};

/// The bucket that holds the k-th largest key, of `n` buckets; 1 ≤ k ≤ Σ counts.
template <class Count> bucket boundary(Count const* counts, std::int64_t k, std::int64_t n) {
  std::int64_t above = 0, b = n - 1;
  for (; b > 0 && above + static_cast<std::int64_t>(counts[b]) < k; --b) above += static_cast<std::int64_t>(counts[b]);
  return {static_cast<std::uint32_t>(b), above};
}

/// Keys of bucket b, in order, to `out`, which may be `keys` itself; returns how many.
inline std::int64_t gather(std::uint32_t const* keys, std::int64_t n, digit d, std::uint32_t b, std::uint32_t* out) {
  std::int64_t size = 0, i = 0;
  for (; i + 64 <= n; i += 64)
    for (std::uint64_t in = mask([&](std::int32_t k) { return d.of(keys[i + k]) == b; }); in != 0; in &= in - 1)
      out[size++] = keys[i + lowest_bit(in)];
  for (; i < n; ++i)
    if (d.of(keys[i]) == b) out[size++] = keys[i];
  return size;
}

/// Where the k best end: every key above `key` is in, and `take` of the `equal` ones.
struct cut {
  std::uint32_t key;
  std::int64_t take, equal;
};

/// Of so few that comparing each with each is quickest; 1 ≤ k ≤ n.
inline cut best_of_few(std::uint32_t const* keys, std::int64_t n, std::int64_t k) {
  for (std::int64_t i = 0;; ++i) {
    std::int64_t above = 0, equal = 0;
    for (std::int64_t j = 0; j < n; ++j) above += keys[j] > keys[i], equal += keys[j] == keys[i];
    if (above < k && k <= above + equal) return {keys[i], k - above, equal};
  }
}

/// Bits in which not all keys are alike.
inline std::uint32_t differing(std::uint32_t const* keys, std::int64_t n) {
  std::uint32_t out = 0;
  for (std::int64_t i = 1; i < n; ++i) out |= keys[i] ^ keys[0];
  return out;
}

/// 1 ≤ k ≤ n; overwrites `keys`. `counts` has table_size elements.
inline cut best(std::uint32_t* keys, std::int64_t n, std::int64_t k, std::uint32_t* counts) {
  while (n > 16) {
    int const bits = bit_width(differing(keys, n));
    if (bits == 0) return {keys[0], k, n};
    int const width = std::min({bits, 11, bit_width(static_cast<std::uint64_t>(n))});
    digit const d{bits - width, width};
    count(keys, n, d, counts);
    bucket const b = boundary(counts, k, std::int64_t{1} << d.width);
    k -= b.above;
    n = gather(keys, n, d, b.index, keys);
  }
  return best_of_few(keys, n, k);
}

}  // namespace radix
}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
