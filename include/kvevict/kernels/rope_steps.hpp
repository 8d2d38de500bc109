// SPDX-License-Identifier: Apache-2.0
// How far every pair of a key turns from a position to the next.
#pragma once

#include <kvevict/core/rope.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(rope_steps_tag, host&);

/// steps[i] = rope::step(i, width), i < width/2. No scratch.
inline void kernel(rope_steps_tag, host&, rope const& by, std::int32_t width, std::uint64_t* steps) {
  for (std::int32_t i = 0; i < width / 2; ++i) steps[i] = by.step(i, width);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
