// SPDX-License-Identifier: Apache-2.0
// Sums over the threads of a block, in order.
#pragma once

#include <cstdint>

#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// What the lanes up to this one have.
KVEVICT_DEVICE inline std::uint32_t sum_to_lane(thread& t, std::uint32_t x) {
  KVEVICT_UNROLL
  for (std::uint32_t d = 1; d < warp_size; d *= 2) {
    std::uint32_t const lower = shuffle_up(t, x, d);
    if (t.lane() >= d) x += lower;
  }
  return x;
}

/// What the warps before this one have, and all together, where x is a warp's own. `words`: 32 shared integers, free
/// again behind the block's next barrier. The block is whole warps; all its threads call.
struct sum_of_warps {
  std::uint32_t before, all;

  KVEVICT_DEVICE sum_of_warps(thread& t, std::uint32_t x, std::uint32_t* words) {
    if (t.lane() == 0) words[t.warp()] = x;
    t.sync_block();
    std::uint32_t const mine = t.lane() < t.block_size().x / warp_size ? words[t.lane()] : 0,
                        sum = sum_to_lane(t, mine);
    before = shuffle(t, sum - mine, t.warp());
    all = shuffle(t, sum, warp_size - 1);
  }
};

/// What the threads before this one have, and all together. `words`: 32 shared integers, free again when it returns.
struct block_sum {
  std::uint32_t before, all;

  KVEVICT_DEVICE block_sum(thread& t, std::uint32_t x, std::uint32_t* words) {
    std::uint32_t const sum = sum_to_lane(t, x);
    sum_of_warps const warps(t, shuffle(t, sum, warp_size - 1), words);
    before = warps.before + sum - x, all = warps.all;
    t.sync_block();
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
