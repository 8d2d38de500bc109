// SPDX-License-Identifier: Apache-2.0
// A policy's per-slot state on a device: read its sum, update a step into it.
#pragma once

#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::sum_state_tag, device&);
void has_kernel(kernels::update_state_tag, device&);

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
template <class Entry> struct update_state_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> view;
  component state;
  update_options update;
  score_rows from;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, from, chunks, r);
    if (j < 0) return;
    row const& it = from.rows[r];
    if (watch.left_out(it.sequence)) return;
    if (j < view.read_only_tokens(it.sequence)) return;
    float* const s = state_row(view, state, it, j);
    if (update.new_tokens == new_token_state::zeroed && from.order(r, j) >= it.new_from)
      for (std::int64_t c = 0; c < state.width(); ++c) s[c] = 0;
    ring const& in = update.columns;
    std::int32_t const rows = in.planes(it.sequence, update.rows);
    for (std::int32_t w = 0; w < rows; ++w) {
      float const x = from.values[w * from.total_floats + from.begin[r] + j];
      float& to = s[in.column(it.sequence, rows - 1 - w)];
      to = update.how == state_update::add ? add(to, x) : x;
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

/// Updates the state by rows of weights, oldest first; tokens of order ≥ row.new_from are new and start from zero; the
/// read-only prefix is not written. One launch.
template <class Entry>
void kernel(kernels::update_state_tag, device& ctx, layer_view<Entry> const& view, component const& state,
            update_options const& update, score_rows const& from) {
  std::uint32_t const chunks = blocks_for(from.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(from.count()) * chunks}, {256}, 0,
             update_state_kernel<Entry>{ctx.watch(), view, state, update, from, chunks});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
