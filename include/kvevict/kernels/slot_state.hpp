// SPDX-License-Identifier: Apache-2.0
// Host kernels of a policy's per-slot state: read its sum, fold a step into it.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// values[j] = Σ_c state(j, c), in order of c. No scratch.
template <class Entry>
void kernel(sum_state_tag, host& ctx, layer_view<Entry> const& view, component const& state, score_rows const& out) {
  std::int64_t const width = state.width();
  ctx.for_each(
      out.count(),
      [&](std::int64_t r, std::int32_t) {
        row const& in = out.rows[r];
        if (!in.active) return;
        for (std::int32_t j = 0; j < in.tokens; ++j) {
          float const* s = &element<float const>(view, state, in.sequence, in.head, j);
          float sum = 0;
          for (std::int64_t c = 0; c < width; ++c) sum += s[c];
          out.scores(r)[j] = sum;
        }
      },
      out.begin[out.count()] * width);
}

/// Folds the row's values into the state. Tokens of rank ≥ row.fresh are new: all their columns start from zero. The
/// read-only prefix is not written. No scratch.
template <class Entry>
void kernel(fold_state_tag, host& ctx, layer_view<Entry> const& view, component const& state, fold_options const& fold,
            score_rows const& from) {
  std::int64_t const width = state.width();
  ctx.for_each(
      from.count(),
      [&](std::int64_t r, std::int32_t) {
        row const& in = from.rows[r];
        if (!in.active) return;
        std::int64_t const column = fold.columns.column(in.sequence);
        for (std::int32_t j = view.read_only_tokens(in.sequence); j < in.tokens; ++j) {
          float* s = &element<float>(view, state, in.sequence, in.head, j);
          if (fold.forget == fresh::zeroed && from.rank(r, j) >= in.fresh) kvevict::fill_n(s, width, 0.0f);
          float const x = from.scores(r)[j];
          s[column] = fold.how == folding::add ? s[column] + x : x;
        }
      },
      from.begin[from.count()] * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
