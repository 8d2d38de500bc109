// SPDX-License-Identifier: Apache-2.0
// A policy's per-slot state on a device: read its sum, fold a step into it.
#pragma once

#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::sum_state_tag, device&);
void has_kernel(kernels::fold_state_tag, device&);

template <class Entry>
KVEVICT_DEVICE float* state_row(layer_view<Entry> const& view, component const& state, row const& it, std::int64_t j) {
  return reinterpret_cast<float*>(view.row(state, it.sequence, it.head, j));
}

/// Shapes   state (B·H, N, floats) → scores (B·H, N).
template <class Entry> struct sum_state_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> view;
  component state;
  score_rows out;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, out, chunks, r);
    if (j < 0) return;
    float const* const s = state_row(view, state, out.rows[r], j);
    float sum = 0;
    for (std::int64_t c = 0; c < state.width(); ++c) sum = add(sum, s[c]);
    out.values[out.begin[r] + j] = sum;
  }
};

/// Shapes   scores (B·H, N) → state (B·H, N, floats).
template <class Entry> struct fold_state_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> view;
  component state;
  fold_options fold;
  score_rows from;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, from, chunks, r);
    if (j < 0) return;
    row const& it = from.rows[r];
    if (j < view.read_only_tokens(it.sequence)) return;
    float* const s = state_row(view, state, it, j);
    if (fold.forget == fresh::zeroed && from.rank(r, j) >= it.fresh)
      for (std::int64_t c = 0; c < state.width(); ++c) s[c] = 0;
    for (std::int32_t w = 0; w < fold.rows; ++w) {
      float const x = from.values[w * from.total_floats + from.begin[r] + j];
      float& to = s[fold.columns.column(it.sequence, fold.rows - 1 - w)];
      to = fold.how == folding::add ? add(to, x) : x;
    }
  }
};

/// values[j] = Σ_c state(j, c), in order of c: the host's bits. One launch, one read of the state.
template <class Entry>
void kernel(kernels::sum_state_tag, device& ctx, layer_view<Entry> const& view, component const& state,
            score_rows const& out) {
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             sum_state_kernel<Entry>{ctx.watch(), view, state, out, chunks});
}

/// Folds rows of weights into the state, oldest first; tokens of rank ≥ row.fresh are new and start from zero; the read-only prefix
/// is not written. One launch.
template <class Entry>
void kernel(kernels::fold_state_tag, device& ctx, layer_view<Entry> const& view, component const& state,
            fold_options const& fold, score_rows const& from) {
  std::uint32_t const chunks = blocks_for(from.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(from.count()) * chunks}, {256}, 0,
             fold_state_kernel<Entry>{ctx.watch(), view, state, fold, from, chunks});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
