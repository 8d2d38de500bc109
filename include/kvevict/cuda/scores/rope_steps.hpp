// SPDX-License-Identifier: Apache-2.0
// How far every pair of a key turns from a position to the next, into a device's memory.
#pragma once

#include <kvevict/core/rope.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::rope_steps_tag, device&);

/// The host's formula, in double: the steps differ by what the two pow do, parts of 10¹⁶.
///
/// Shapes   → steps (width/2).
struct rope_steps_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  rope by;
  std::int32_t width;
  std::uint64_t* steps;

  KVEVICT_DEVICE void operator()(thread& t) const {
    auto const i = static_cast<std::int32_t>(t.block().x * t.block_size().x + t.linear_index());
    if (i < width / 2 && !watch.stopped(t)) steps[i] = by.step(i, width);
  }
};

inline void kernel(kernels::rope_steps_tag, device& ctx, rope const& by, std::int32_t width, std::uint64_t* steps) {
  ctx.launch({blocks_for(width / 2, 128)}, {128}, 0, rope_steps_kernel{ctx.watch(), by, width, steps});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
