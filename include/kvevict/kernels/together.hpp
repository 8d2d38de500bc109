// SPDX-License-Identifier: Apache-2.0
// Rows that keep one set of tokens: their scores become one, in every context.
#pragma once

#include <cstdint>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Which rows go together: the heads of a sequence, or a head's layers in a stack.
enum class together_over : std::uint8_t { heads, layers };

/// The rows of a group lie `step` apart: heads b·H + h side by side, layers (l·S + s)·H + h a layer apart.
struct row_group {
  std::int64_t count = 1, step = 1, of_layer = 1;
  together_over over = together_over::heads;

  constexpr row_group(score_rows const& rows, together_over what)
      : row_group(rows.sequences, rows.heads, rows.layers, what) {}
  constexpr row_group(std::int64_t sequences, std::int64_t heads, std::int64_t layers, together_over what)
      : count(what == together_over::heads ? heads : layers),
        step(what == together_over::heads ? 1 : sequences / layers * heads),
        of_layer(sequences / layers),
        over(what) {}
  constexpr std::int64_t first(std::int64_t r) const { return over == together_over::heads ? r - r % count : r % step; }
};

namespace kernels {

/// The first row of each group takes what they have together. Sums go by row, so that no bit depends on the context.
struct gather_together {
  score_rows rows;
  row_group group;
  group_reduce reduce;

  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    std::int64_t const first = rows.index_of(in);
    if (group.first(first) != first) return;
    auto const share = static_cast<float>(reduce == group_reduce::mean ? group.count : 1);
    float all = rows.values[rows.begin[first] + j] / share;
    for (std::int64_t i = 1; i < group.count; ++i) {
      float const next = rows.values[rows.begin[first + i * group.step] + j];
      all = reduce == group_reduce::max ? larger_or_nan(next, all) : all + next / share;
    }
    x = all;
  }
};
/// And hands it to the others.
struct spread_together {
  score_rows rows;
  row_group group;

  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    std::int64_t const r = rows.index_of(in), first = group.first(r);
    if (first != r) x = rows.values[rows.begin[first] + j];
  }
};

/// Every row of a group gets the same scores: the mean, the largest or the sum of its rows'. They have the same tokens.
///
/// Cost     two reads and a write of the scores; no scratch.
template <class Context>
void join_scores(Context& ctx, score_rows const& rows, together_over over, group_reduce reduce) {
  row_group const group(rows, over);
  if (group.count <= 1) return;
  each_token(ctx, rows, gather_together{rows, group, reduce});
  each_token(ctx, rows, spread_together{rows, group});
  if (reduce == group_reduce::sum) require_finite(ctx, rows);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
