// SPDX-License-Identifier: Apache-2.0
// How unevenly the channels of a token lie in their ranges over the tokens of the next group, on a device.
#pragma once

#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/row_reductions.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::channel_spreads_tag, device&);

template <class Elements> struct channel_spread {
  token_groups groups;
  score_rows rows;
  Elements elements;
  float const *low, *high;  // (B·H, G, D)
  std::int32_t width;

  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
    if (j < groups.first || !groups.is_followed(groups.group_of(j), in.tokens)) return;
    float sum = 0, squares = 0;
    std::int64_t const next = groups.place(rows, in, j, 1) * width;
    for (std::int32_t first = 0; first < width; first += row_chunk) {
      float e[row_chunk];
      elements(in, j, first, e);
      for (std::int32_t i = 0; i < row_chunk; ++i) {  // of a constant number of turns: `e` stays in registers
        std::int32_t const d = first + i;
        if (d >= width) break;
        float const range = high[next + d] - low[next + d];
        // around ½, where most of them lie, so that squares lose little
        float const y = (range == 0 ? 0.0f : (e[i] - low[next + d]) / range) - 0.5f;
        sum += y, squares += y * y;
      }
    }
    auto const n = static_cast<float>(width);
    float const variance = (squares - sum * sum / n) / (n > 1 ? n - 1 : 1.0f);
    x = ::sqrtf(variance < 0 ? 0.0f : variance);
  }
};

/// The host's (kernels/channel_spreads.hpp) to float rounding, the same bits in every layout. Three reads of the
/// elements, the launches of row_min and row_max and one more; scratch 2·G·D floats a row besides theirs.
template <class Elements>
void kernel(kernels::channel_spreads_tag, device& ctx, score_rows const& out, token_groups const& groups,
            Elements const& of) {
  auto const D = static_cast<std::int32_t>(of.of.width());
  std::int64_t const floats = out.count() * groups.count(out.most_tokens) * D;
  frame scratch(ctx.scratch());
  float *const low = scratch.template allocate<float>(floats), *const high = scratch.template allocate<float>(floats);
  kernels::row_min(ctx, out, groups, D, of, low);
  kernels::row_max(ctx, out, groups, D, of, high);
  kernels::each_token(ctx, out, channel_spread<Elements>{groups, out, of, low, high, D});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
