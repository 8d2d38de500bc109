// SPDX-License-Identifier: Apache-2.0
// Rows that are to keep one set of tokens hold the same tokens, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/evidence/same_tokens.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::same_tokens_tag, device&);

/// Grid: (row, 256 tokens); the first thread of a row compares lengths and budgets, every thread a position.
///
/// Shapes   rows (B·H), a view of them → nothing but faults.
template <class Entry> struct same_tokens_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> cache;
  score_rows rows;
  row_group group;
  std::uint32_t chunks;
  planning::alike like;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x / chunks, from = group.first(r);
    std::int64_t const j = std::int64_t{t.block().x % chunks} * 256 + t.linear_index();
    row const &it = rows.rows[r], &first = rows.rows[from];
    fault const what = planning::apart_from(cache, like, first, it);
    auto const layers = static_cast<std::int32_t>(group.over == together_over::layers),
               of_layer = static_cast<std::int32_t>(group.of_layer);
    if (what != fault::none) {
      if (j == 0) watch.refuse(t, what, it.sequence, it.head, first.tokens, it.tokens, 0, layers, of_layer);
      return;
    }
    component const* const positions = planning::own_positions(cache, like);
    if (positions == nullptr || !it.active || r == from || j >= it.tokens) return;
    auto const p = element<std::int32_t const>(cache, *positions, first.sequence, first.head, j),
               q = element<std::int32_t const>(cache, *positions, it.sequence, it.head, j);
    if (p != q) watch.refuse(t, fault::positions_apart, it.sequence, it.head, p, q, j, layers, of_layer);
  }
};

/// The host's checks (evidence/same_tokens.hpp); one launch.
template <class Entry>
void kernel(kernels::same_tokens_tag, device& ctx, layer_view<Entry> const& cache, score_rows const& rows,
            planning::alike const& like) {
  row_group const group(rows.sequences, rows.heads, cache.pages.layers, like.over);
  if (group.count <= 1 || rows.count() == 0 || !planning::may_differ(cache, like)) return;
  std::uint32_t const chunks =
      planning::own_positions(cache, like) == nullptr ? 1 : std::max(1u, blocks_for(rows.most_tokens, 256));
  ctx.launch({static_cast<std::uint32_t>(rows.count()) * chunks}, {256}, 0,
             same_tokens_kernel<Entry>{ctx.watch(rows.verb()), cache, rows, group, chunks, like});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
