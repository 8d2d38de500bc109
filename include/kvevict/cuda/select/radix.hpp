// SPDX-License-Identifier: Apache-2.0
// Finding the k-th best of n keys without sorting, by a block: one histogram per digit. The host's order and digits.
#pragma once

#include <cstdint>

#include <kvevict/core/order_key.hpp>
#include <kvevict/cuda/context/block_sum.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {
namespace radix {

struct digit {
  std::uint32_t shift, width;
  KVEVICT_DEVICE std::uint32_t of(std::uint32_t k) const { return (k >> shift) & ((1u << width) - 1u); }
  /// Whether the digits before this one are those that were found.
  KVEVICT_DEVICE bool follows(std::uint32_t k, std::uint32_t found) const {
    return ((k ^ found) & (shift + width == 32 ? 0u : ~0u << (shift + width))) == 0;
  }
};
inline constexpr int digit_count = 3;
inline constexpr std::uint32_t buckets = 2048;
KVEVICT_DEVICE inline digit nth_digit(int i) { return i == 0 ? digit{21, 11} : i == 1 ? digit{10, 11} : digit{0, 10}; }

struct boundary {
  std::uint32_t bucket, above, inside;  // keys in the buckets behind it, and in it
};

/// The bucket that holds the k-th largest key; 1 ≤ k ≤ Σ counts. `words`: 36 shared integers.
KVEVICT_DEVICE inline boundary find_boundary(thread& t, std::uint32_t const* counts, std::uint32_t k,
                                             std::uint32_t* words) {
  std::uint32_t const each = buckets / t.block_size().x + (buckets % t.block_size().x != 0 ? 1 : 0);
  std::uint32_t const first = t.linear_index() * each,
                      last = first + each < buckets ? first + each : buckets;  // from the top
  std::uint32_t mine = 0;
  for (std::uint32_t i = first; i < last; ++i) mine += counts[buckets - 1 - i];
  block_sum const sum(t, mine, words);
  if (sum.before < k && k <= sum.before + mine) {
    std::uint32_t above = sum.before, b = buckets - 1 - first;
    for (; above + counts[b] < k; --b) above += counts[b];
    words[33] = b, words[34] = above, words[35] = counts[b];
  }
  t.sync_block();
  boundary const found{words[33], words[34], words[35]};
  t.sync_block();
  return found;
}

/// Where the k best end: every key above `key` is in, and `take` of the `equal` ones.
struct cut {
  std::uint32_t key, take, equal;
};

/// Over the keys of this thread's items, which `each(turn, f)` hands to f(key) one by one, in turns 0, 1 and 2; 1 ≤ k ≤
/// their number in the block.
/// `counts`: `buckets` shared integers.
template <class Each>
KVEVICT_DEVICE cut best(thread& t, Each each, std::uint32_t k, std::uint32_t* counts, std::uint32_t* words) {
  cut found{0, k, 0};
  KVEVICT_UNROLL
  for (int i = 0; i < digit_count; ++i) {
    digit const d = nth_digit(i);
    for (std::uint32_t b = t.linear_index(); b < buckets; b += t.block_size().x) counts[b] = 0;
    t.sync_block();
    each(i, [&](std::uint32_t x) {
      if (d.follows(x, found.key)) atomic_add(t, &counts[d.of(x)], 1u);
    });
    t.sync_block();
    boundary const b = find_boundary(t, counts, found.take, words);
    found = {found.key | b.bucket << d.shift, found.take - b.above, b.inside};
  }
  return found;
}

}  // namespace radix
}  // namespace kvevict::inline KVEVICT_ABI::cuda
