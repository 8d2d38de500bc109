// SPDX-License-Identifier: Apache-2.0
// Which slots the kept tokens of a row move to, worked out where they are moved: no plan is stored.
#pragma once

#include <cstdint>

#include <kvevict/cache/move_plan.hpp>
#include <kvevict/cuda/context/device.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The first i of [0, n) for which yes(i), or n; once true it stays true. By one thread.
struct by_thread {
  template <class Yes> KVEVICT_DEVICE std::int32_t operator()(Yes yes, std::int32_t n) const {
    std::int32_t low = 0;
    for (std::int32_t high = n; low < high;) {
      std::int32_t const middle = low + (high - low) / 2;
      if (yes(middle))
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
};
/// The same by a warp, 32 looks at a time: a fifth of the reads that wait for each other. All its lanes call.
struct by_warp {
  thread& t;
  template <class Yes> KVEVICT_DEVICE std::int32_t operator()(Yes yes, std::int32_t n) const {
    std::int32_t low = 0, high = n;
    while (low < high) {
      std::int32_t const step = (high - low + 31) / 32, at = low + static_cast<std::int32_t>(t.lane()) * step;
      // lanes before the first that says yes
      std::int32_t const no = 32 - count_bits(ballot(t, at >= high || yes(at)));
      high = no == 0 ? low : std::min(high, low + no * step);
      if (no != 0) low += (no - 1) * step + 1;
    }
    return low;
  }
};

/// `count` ascending kept tokens of a row that fill its front: the first `stay` do not move, move i takes source(i) to
/// destination(i).
struct kept_row {
  std::int32_t const* kept;
  std::int32_t count, stay;
  compaction mode;

  template <class First = by_thread>
  KVEVICT_DEVICE kept_row(std::int32_t const* tokens, std::int32_t n, compaction how, First first = {})
      : kept(tokens), count(n), stay(0), mode(how) {
    // fill_holes: tokens below `count` stay; stable: those with kept[i] = i, and kept[i] − i never falls
    stay =
        first([&](std::int32_t i) { return mode == compaction::fill_holes ? kept[i] >= count : kept[i] != i; }, count);
  }
  /// With the number of moves known.
  KVEVICT_DEVICE kept_row(std::int32_t const* tokens, std::int32_t n, std::int32_t moves, compaction how)
      : kept(tokens), count(n), stay(n - moves), mode(how) {}
  KVEVICT_DEVICE std::int32_t moves() const { return count - stay; }
  KVEVICT_DEVICE std::int32_t source(std::int32_t i) const { return kept[stay + i]; }
  /// Hole i lies behind every kept token that has at most i holes before it.
  template <class First = by_thread> KVEVICT_DEVICE std::int32_t destination(std::int32_t i, First first = {}) const {
    return mode == compaction::stable ? stay + i : i + first([&](std::int32_t k) { return kept[k] - k > i; }, stay);
  }
  /// Moved tokens lie behind all that stay, so that the row is still in order.
  template <class First> KVEVICT_DEVICE bool in_order(First first) const {
    return moves() == 0 || destination(0, first) == stay;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
