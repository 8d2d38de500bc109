// SPDX-License-Identifier: Apache-2.0
// The softmax of a gate's attention, taken from rows of its memory as they come, and which block takes which rows.
#pragma once

#include <algorithm>

#include <kvevict/cuda/gate/project.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {
namespace gate_softmax {

inline constexpr int each = 8, split = 256;
inline constexpr float hidden = -3e38f;

/// A streaming softmax: logits in base 2 become weights; returns what earlier weights and sums shrink by.
struct running {
  float peak = -1e30f, total = 0;

  KVEVICT_DEVICE float accumulate(float (&z)[each]) {
    float top = peak;
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) top = z[k] > top ? z[k] : top;
    float const shrink = exp2(peak - top);
    peak = top, total = multiply(total, shrink);
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) z[k] = exp2(z[k] - top), total = add(total, z[k]);
    return shrink;
  }
};

/// What the splits so far come to: the weighted sums stay in memory until all are there.
struct gathered {
  float peak = -1e30f, total = 0;
  struct step {
    bool first;
    float old, fresh;
    KVEVICT_DEVICE void operator()(float* to, float sum) const {
      *to = first ? sum : add(multiply(*to, old), multiply(sum, fresh));
    }
  };
  /// Takes a split in; the result does so with each of its sums.
  KVEVICT_DEVICE step accumulate(running const& part) {
    float const top = fmaxf(peak, part.peak);
    step const s{total == 0, exp2(peak - top), exp2(part.peak - top)};
    s(&total, part.total);
    peak = top;
    return s;
  }
};

/// What a block works on: tokens from `first` on and rows [begin, end) of the memory. Late tokens see the most: they
/// come first.
struct place {
  std::int32_t b, h, first;
  std::int64_t begin, end, s;

  KVEVICT_DEVICE place(thread& t, gate_call const& c) {
    auto const tile = t.block().x / c.splits, of_head = tile / c.tiles, heads = static_cast<std::uint32_t>(c.w.heads);
    s = t.block().x % c.splits;
    b = static_cast<std::int32_t>(of_head / heads), h = static_cast<std::int32_t>(of_head % heads);
    first = static_cast<std::int32_t>((c.tiles - 1 - tile % c.tiles) * t.block_size().x);
    begin = s * split, end = c.seen(b, first + static_cast<std::int32_t>(t.block_size().x) - 1);
    if (c.splits > 1) end = std::min(end, begin + split);
  }
  /// Where token i's sums go: in place of its query, or to the parts.
  KVEVICT_DEVICE float* sums(gate_call const& c, std::int32_t i) const {
    return c.splits == 1 ? c.own_values(b, i, h) : c.part(b, s, i, h);
  }
};
/// The last step: C, or what the parts' sums are parts of.
KVEVICT_DEVICE inline void finish(gate_call const& c, gathered const& all, float* to) {
  if (c.splits > 1)
    to[c.w.head_dim] = all.peak, to[c.w.head_dim + 1] = all.total;
  else
    for (std::int32_t d = 0; d < c.w.head_dim; ++d) to[d] /= all.total;
}

}  // namespace gate_softmax

}  // namespace kvevict::inline KVEVICT_ABI::cuda
