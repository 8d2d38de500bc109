// SPDX-License-Identifier: Apache-2.0
// Host kernel: attention sums of the newest rows, by whichever of two ways is cheaper.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(newest_sums_tag, host&);

/// window_scores; when the rows are those of all tokens, column_sums, which gives the same sums and holds less.
template <class View, class Rows>
void kernel(newest_sums_tag, host& ctx, View const& view, Rows const& q, window_options const& o,
            score_rows const& out) {
  bool whole = out.positions == nullptr;
  for (std::int64_t r = 0; r < out.count(); ++r) whole = whole && out.rows[r].tokens <= o.rows;
  if (whole)
    column_sums(ctx, view, q, o.group, out);
  else
    window_scores(ctx, view, q, o, out);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
