// SPDX-License-Identifier: Apache-2.0
// Squared norms of the rows of one component.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/tile.hpp>

namespace kvevict {
inline namespace v0 {
namespace kernels {
inline namespace KVEVICT_ISA {

/// Σ x² of one row: `lanes` partial sums over d, then their sum, whatever the layout.
template <class T> float squared_norm(std::byte const* row, row_map const& m, std::int32_t width) {
  vec sum = {};
  for (std::int32_t d = 0; d < width; d += lanes) {
    vec const x = read_chunk<T>(row, m, d, width);
    sum += x * x;
  }
  return sum_of(sum);
}

/// ‖row‖² of every token of every active row.
///
///   s(h,j) = Σ_d x(h,j,d)²      in float
///
/// Shapes   component (H,N,D) in f32, f16 or bf16 → scores (H,N) float.
/// Cost     one pass at memory speed; no scratch.
/// Errors   contract_violation if the component is not floating.
template <class Entry>
void kernel(squared_norms_tag, host& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  KVEVICT_EXPECTS(is_floating(c.type), "squared_norms: the component has type ", name_of(c.type), "; give one of f32, f16, bf16");
  constexpr std::int64_t chunk = 1024;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) longest = std::max<std::int64_t>(longest, out.rows[r].tokens);
  std::int64_t const chunks = (longest + chunk - 1) / chunk;
  ctx.for_each(out.count() * chunks, [&](std::int64_t i, std::int32_t) {
    std::int64_t const r = i / chunks, first = i % chunks * chunk;
    row const& row = out.rows[r];
    auto const width = static_cast<std::int32_t>(c.width());
    if (!row.active) return;
    with_type(c.type, [&](auto type) {
      std::byte const* addresses[tile_tokens];
      for (std::int64_t t = first; t < std::min<std::int64_t>(first + chunk, row.tokens); t += tile_tokens) {
        auto const count = static_cast<int>(std::min<std::int64_t>(tile_tokens, std::min<std::int64_t>(first + chunk, row.tokens) - t));
        row_addresses(view, c, row.sequence, row.head, t, count, count, addresses);
        for (int j = 0; j < count; ++j) out.values[out.begin[r] + t + j] = squared_norm<decltype(type)>(addresses[j], c.rows, width);
      }
    });
  });
}

}  // namespace KVEVICT_ISA
}  // namespace kernels
}  // namespace v0
}  // namespace kvevict
