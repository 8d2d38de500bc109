// SPDX-License-Identifier: Apache-2.0
// What every context refuses of a window before it looks at the rows.
#pragma once

#include <kvevict/core/contract.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

inline void expect_pooling(pool_options const& o) {
  KVEVICT_EXPECTS(o.width >= 1 && o.width < 1 << 16 && o.width % 2 == 1, "pool: the width is ", o.width,
                  "; give an odd width up to 65535, 1 for none");
}

inline void expect_window_rows(window_options const& o) {
  KVEVICT_EXPECTS(o.rows >= 1, "window_scores: the window has ", o.rows, " rows; give at least one row");
}

/// Weights of single rows are not pooled.
inline void expect_single_rows(window_options const& o) {
  KVEVICT_EXPECTS(o.pool.width == 1 && o.pool_before_group.width == 1,
                  "window_weights: the weights of single rows are not pooled; set both widths to 1");
}
/// Every sequence has as many tokens as rows are asked for. Only the host can look.
inline void expect_single_rows(window_options const& o, score_rows const& out) {
  expect_single_rows(o);
  for (std::int64_t r = 0; r < out.count(); ++r)
    if (out.rows[r].active && !out.observed && out.rows[r].tokens < o.rows)
      messages::too_few_tokens(o.rows, out.rows[r].sequence, out.rows[r].tokens);
}

/// What a row sees is a count or none.
inline void expect_visibility(visibility const& v) {
  KVEVICT_EXPECTS(v.window >= 0 && v.chunk >= 0 && v.sinks >= 0, "evidence: a row that sees a window of ", v.window,
                  " tokens, chunks of ", v.chunk, " and ", v.sinks, " sinks; give counts, 0 for none");
}

template <class Rows>
void expect_one_row(char const* verb, Rows const& rows, window_options const& o, score_rows const& out) {
  KVEVICT_EXPECTS(out.positions == nullptr || ((o.rows == 1 || rows.positions != nullptr) &&
                                               o.pool_before_group.width == 1 && o.pool.width == 1),
                  verb,
                  ": the rows are scattered, so tokens have no neighbours, and of rows without positions only the "
                  "newest one's view is known; compact them stably first, or give positions and ask for no "
                  "pooling");
}

inline void expect_window_options(query_rows const& q, window_options const& o, score_rows const& out) {
  expect_pooling(o.pool_before_group), expect_pooling(o.pool), expect_window_rows(o), expect_visibility(q.sees);
  expect_one_row("window_scores", q, o, out);
  KVEVICT_EXPECTS(
      out.count() == 0 || o.place == row_place::in_cache || (q.has_lse() && o.weights == weighting::softmax),
      "window_scores: rows that come after the cache attend to more than it holds; provide their LSE and use "
      "weighting::softmax");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
