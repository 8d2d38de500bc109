// SPDX-License-Identifier: Apache-2.0
// One call of window_scores or window_weights: queries in, sums of weights out, and whether the LSE belongs to them.
#pragma once

#include <algorithm>

#include <kvevict/kernels/window_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// What a call is given, and its parts that do not depend on how logits come about.
template <class Entry> struct window_call {
  host& ctx;
  layer_view<Entry> const& view;
  query_rows const& q;
  window_options const& o;
  score_rows const& out;
  window_shape shape;

  component const& keys() const { return *view.find(role::k); }

  /// Query rows of a KV head, with the engine's LSE where there is one.
  query_block pack(window_row const& w, float* memory) const {
    query_block block = make_query_block(memory, w.in.count * shape.group, q.head_dim);
    query_rows const own = q.of(w.b);
    pack_queries(block, own, w.in, 0, w.in.count, w.h, shape.group, w.gains);
    block.tokens = w.tokens, block.orders = out.positions_of(w.index);
    if (block.orders != nullptr) block.all = {0, 0};
    if (w.lse != nullptr)
      block.lse = w.lse;
    else if (shape.normalised)
      fill_lse(block, own, w.in, 0, w.h, shape.group);
    return block;
  }

  /// Raises unless the weights by the engine's LSE have added up to what they should. memory: tile_floats(D)
  void check(window_row const& w, float* memory) const {
    double norm = -1;
    query_rows const own = q.of(w.b);
    for (std::int32_t g = 0; g < shape.group; ++g)
      expect_sums(view, keys(), own, w.in, 0, w.in.count, std::int64_t{w.h} * shape.group + g, out.rows[w.index],
                  o.place == row_place::in_cache ? q.sum : row_sum::at_most_one, w.checked.from(g * w.in.count), memory,
                  norm);
  }

  /// A tile's sums, reduced, to the scores; or as they are to the heads that are pooled one by one.
  void put(window_row const& w, std::int64_t first, float* sums) const {
    std::int64_t const wide = std::int64_t{w.sums} * tile_tokens;
    float const share = o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(w.per_sum(), 1)) : 1.0f;
    for (std::int64_t j = 0; j < shape.group * wide; j += lanes) store(sums + j, load(sums + j) * share);
    if (w.heads != nullptr) {
      for (std::int32_t g = 0; g < shape.group; ++g)
        kvevict::copy_n(sums + g * tile_tokens, tile_tokens, w.heads + g * w.tiles * tile_tokens + first);
      return;
    }
    reduce_heads(o.group, shape.group, wide, wide, sums);
    for (std::int32_t i = 0; i < w.sums; ++i)
      kvevict::copy_n(sums + i * tile_tokens, std::min<std::int64_t>(tile_tokens, w.tokens - first),
                      out.plane(i).scores(w.index).data + first);
  }
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
