// SPDX-License-Identifier: Apache-2.0
// ‖row‖² of every token of a quantised component, on a device.
#pragma once

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/cuda/context/decodable.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A token is served by 2^`lanes` neighbouring lanes, each of which decodes every 2^lanes-th chunk of its row and adds
/// it, element by element; then the lanes are added up pairwise. So the order of additions depends on the row's width
/// alone. Grid: (row, tokens).
///
/// Shapes   a component (B·H, N, width) → scores (B·H, N).
template <class Entry> struct coded_norms_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> view;
  component c;
  score_rows out;
  std::uint32_t chunks, lanes;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x / chunks;
    row const& it = out.rows[r];
    std::int32_t const abreast = max_threads >> lanes, step = 1 << lanes, end = it.active ? it.tokens : 0;
    if (end == 0) return;  // there may be no page to read
    std::int32_t const lane = static_cast<std::int32_t>(t.linear_index()) & (step - 1);
    std::int32_t const j = static_cast<std::int32_t>(t.block().x - static_cast<std::uint32_t>(r) * chunks) * abreast +
                           static_cast<std::int32_t>(t.linear_index() >> lanes);
    row_reader<Entry> const rows(view, c, it);
    float sum = 0;
    for (std::int32_t first = lane * row_chunk; first < rows.width() && j < end; first += step * row_chunk) {
      float x[row_chunk];
      rows.read(j, first, x);
      KVEVICT_UNROLL
      for (std::int32_t i = 0; i < row_chunk; ++i) sum = fma(x[i], x[i], sum);
    }
    for (std::uint32_t d = 1u << lanes >> 1; d != 0; d /= 2) sum = add(sum, shuffle_xor(t, sum, d));
    if (lane == 0 && j < end) out.values[out.begin[r] + j] = sum;
  }
};

template <class Entry>
void coded_norms(device& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  expect_decodable(c);
  using kernel = coded_norms_kernel<Entry>;
  std::uint32_t lanes = 0;
  while (lanes < 5 && row_chunk << lanes < c.width()) ++lanes;
  std::uint32_t const chunks = blocks_for(out.most_tokens, kernel::max_threads >> lanes);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             kernel{ctx.watch(), view, c, out, chunks, lanes});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
