// SPDX-License-Identifier: Apache-2.0
// The evictable tokens of a row in order that stay, written in order by a block.
#pragma once

#include <kvevict/cuda/select/row_keys.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A round is 512 neighbours a warp: four vectors of a lane, each beside the other lanes'. Of keys that equal the
/// cut's, the first `dropped` go.
template <bool Held> struct best_writer {
  static constexpr std::uint32_t vectors = 4, of_warp = vectors * 4 * warp_size;
  ordered_keys<Held> const& v;
  std::uint32_t cut, dropped;
  std::int32_t* out;
  std::uint32_t* words;            // 64 shared integers
  std::uint32_t in = 0, ties = 0;  // keys not below the cut, and of these its equals, before this round

  KVEVICT_DEVICE void operator()(thread& t) {
    std::uint32_t const round = t.block_size().x / warp_size * of_warp;
    std::uint32_t at = v.begin() + t.warp() * of_warp + t.lane() * 4, side = 0;
    vec128 next[vectors];
    read(t, at, next);
    for (std::uint32_t from = v.begin(); from < v.last; from += round, at += round, side ^= warp_size) {
      vec128 now[vectors];
      KVEVICT_UNROLL
      for (std::uint32_t e = 0; e < vectors; ++e) v.to_keys(now[e] = next[e], at + e * 4 * warp_size, 1);
      read(t, at + round, next);  // under way while these are counted
      if (ties < dropped)
        write<true>(t, now, at, words + side);
      else
        write<false>(t, now, at, words + side);
    }
  }

 private:
  KVEVICT_DEVICE void read(thread& t, std::uint32_t at, vec128 (&to)[vectors]) const {
    KVEVICT_UNROLL
    for (std::uint32_t e = 0; e < vectors; ++e) to[e] = v.load(t, at + e * 4 * warp_size, 1);
  }

  static KVEVICT_DEVICE std::uint32_t byte(std::uint32_t x, std::uint32_t e) { return x >> 8 * e & 0xffu; }
  static KVEVICT_DEVICE std::uint32_t sum_of_bytes(std::uint32_t x) {
    return byte(x, 0) + byte(x, 1) + byte(x, 2) + byte(x, 3);
  }

  /// Ties: some of the cut's equals may have to go; else all of those that go were in earlier rounds.
  template <bool Ties>
  KVEVICT_DEVICE void write(thread& t, vec128 const (&key)[vectors], std::uint32_t at, std::uint32_t* sums) {
    std::uint32_t mine = 0, equal = 0;  // a byte for each vector: at most 128 in a warp
    KVEVICT_UNROLL
    for (std::uint32_t e = 0; e < vectors; ++e) KVEVICT_UNROLL
    for (std::uint32_t const k : key[e].words) {
      mine += static_cast<std::uint32_t>(k >= cut) << 8 * e;
      if (Ties) equal += static_cast<std::uint32_t>(k == cut) << 8 * e;
    }
    std::uint32_t const to_lane = sum_to_lane(t, mine), of_all = shuffle(t, to_lane, warp_size - 1);
    std::uint32_t const equal_to_lane = Ties ? sum_to_lane(t, equal) : 0,
                        equal_of_all = Ties ? shuffle(t, equal_to_lane, warp_size - 1) : 0;
    sum_of_warps const sum(t, sum_of_bytes(of_all) | sum_of_bytes(equal_of_all) << 16, sums);  // at most 2^14 each
    std::uint32_t first = in + (sum.before & 0xffffu), seen = ties + (sum.before >> 16);
    KVEVICT_UNROLL
    for (std::uint32_t e = 0; e < vectors; ++e) {
      std::uint32_t before = seen + byte(equal_to_lane - equal, e), gone = Ties ? std::min(before, dropped) : dropped;
      std::int32_t* to = out + (first + byte(to_lane - mine, e) - gone);
      KVEVICT_UNROLL
      for (std::uint32_t w = 0; w < 4; ++w) {
        std::uint32_t const k = key[e].words[w];
        if (Ties && k == cut && before++ < dropped) continue;
        if (k >= cut) *to++ = static_cast<std::int32_t>(at + e * 4 * warp_size + w);
      }
      first += byte(of_all, e), seen += byte(equal_of_all, e);
    }
    in += sum.all & 0xffffu, ties += sum.all >> 16;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
