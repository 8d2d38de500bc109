// SPDX-License-Identifier: Apache-2.0
// Sums over the threads of a block, in order.
#pragma once

#include <cstdint>

#include <kvevict/cuda/layer.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// What the threads before this one have, and all together. `words`: 33 shared integers, free again when it returns. The block is whole
/// warps; all its threads call.
struct block_sum {
  std::uint32_t before, all;

  KVEVICT_DEVICE block_sum(thread& t, std::uint32_t x, std::uint32_t* words) {
    std::uint32_t sum = x;
    for (std::uint32_t d = 1; d < warp_size; d *= 2) {
      std::uint32_t const lower = shuffle_up(t, sum, d);
      if (t.lane() >= d) sum += lower;
    }
    if (t.lane() == warp_size - 1) words[t.warp()] = sum;
    t.sync_block();
    if (t.warp() == 0) {
      std::uint32_t const warps = t.block_size().x / warp_size, mine = t.lane() < warps ? words[t.lane()] : 0;
      std::uint32_t total = mine;
      for (std::uint32_t d = 1; d < warp_size; d *= 2) {
        std::uint32_t const lower = shuffle_up(t, total, d);
        if (t.lane() >= d) total += lower;
      }
      words[t.lane()] = total - mine;
      if (t.lane() == warp_size - 1) words[warp_size] = total;
    }
    t.sync_block();
    before = words[t.warp()] + sum - x;
    all = words[warp_size];
    t.sync_block();
  }
};

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
