// SPDX-License-Identifier: Apache-2.0
// Host kernel: attention sums of the newest rows, by whichever of two ways is cheaper.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(newest_sums_tag, host&);

/// The rows of sequence b are those of all its tokens.
template <class Rows> bool is_whole(Rows const& q, score_rows const& out, std::int32_t b) {
  bool whole = out.positions == nullptr;
  for (std::int32_t h = 0; h < out.heads; ++h)
    whole = whole && out.rows[std::int64_t{b} * out.heads + h].tokens <= q.rows(b);
  return whole;
}

/// Of the sequences with new rows those that f is true of are active; how many rows of scores they have.
template <class F> std::int64_t activate(score_rows const& out, F f) {
  std::int64_t count = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row& it = out.rows[r];
    count += it.active = it.candidates != 0 && f(it.sequence);
  }
  return count;
}

/// Of each sequence for itself: column_sums where its rows are those of all its tokens, which gives the same sums as
/// window_scores and holds less; else those. So no bit of a sequence depends on the others of a call.
template <class View, class Rows>
void kernel(newest_sums_tag, host& ctx, View const& view, Rows const& q, window_options const& o,
            score_rows const& out) {
  std::int64_t const whole = activate(out, [&](std::int32_t b) { return is_whole(q, out, b); });
  if (whole != 0) column_sums(ctx, view, q, o.group, out);
  std::int64_t const others = activate(out, [&](std::int32_t b) { return !is_whole(q, out, b); });
  if (others != 0) window_scores(ctx, view, q, o, out);
  activate(out, [](std::int32_t) { return true; });
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
