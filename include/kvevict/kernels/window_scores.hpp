// SPDX-License-Identifier: Apache-2.0
// Attention that the last query rows pay to every token.
#pragma once

#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/require_finite.hpp>
#include <kvevict/kernels/window_pass.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(window_scores_tag, host&);
void has_kernel(window_weights_tag, host&);

/// Attention that the last W query rows of a sequence pay to each of its tokens.
///
///   s(h,j) = 1/(W·G) · Σ_{g,w} softmax_n( gain_w · z(h·G+g, w, n) )[j]      or sums instead of means, a maximum over
///   g;  then o.pool
///
/// With an LSE (and no step gain) a weight is exp(z − lse). A row sees what q.sees says, by position where the cache
/// carries positions, else row i of n the tokens [0, N−n+i]; rows behind the cache see all of it, within their windows.
/// Tokens that no row sees score 0.
///
/// Shapes   queries (T,Hq,D) ragged, keys (H,N,D), floats or quantised, any layout → scores (B·H rows, N) float.
/// Cost     2·Hq·W·N·D flop and one pass over K; with an LSE, G·W ≤ short_rows and no pool_before_group heads that lie
///          side by side are read in the order of memory (short_windows.hpp). Without LSE the exponentials of as many
///          KV heads as fit are kept, and those of a head that exceeds kept_weights_bytes are computed twice. Scratch:
///          window_scores_bytes.
/// Errors   contract_violation if a sequence provides fewer rows than the window needs, a row's weights by the engine's
///          LSE do not add up to what they should (expect_sums), what a row sees cannot be told (expect_sights), rows
///          are scattered and W > 1 without positions, or rows come after the cache without LSE.
template <class Entry>
void kernel(window_scores_tag, host& ctx, layer_view<Entry> const& view, query_rows const& q, window_options const& o,
            score_rows const& out) {
  expect_window(view, q, o, out);
  window_pass<Entry> pass({ctx, view, q, o, out, window_shape_of(q, o, out, false)});
  for (std::int64_t r = 0; r < out.count();) r = pass.run(r);
  pool(ctx, o.pool, out);
}

/// The weights of each of the last W query rows, reduced over the group and not over the rows: row w, oldest first, to
/// out.plane(w). Each equals the scores of a window of that row alone: bit for bit, unless there is an LSE and
/// G ≤ short_rows, since such a window adds its products in another order.
///
/// Shapes   as window_scores → (W, B·H rows, N) float.
/// Cost     as window_scores, and W·N floats written a row; G·W·tile_tokens more floats of scratch a worker.
/// Errors   as window_scores; a pool; fewer than W tokens or rows; a weight of an evictable token that is not finite.
///          Of rows of observe() W is an upper bound: where a sequence provides fewer, the last planes are not written.
template <class Entry>
void kernel(window_weights_tag, host& ctx, layer_view<Entry> const& view, query_rows const& q, window_options o,
            score_rows const& out) {
  o.reduce = row_reduce::sum;
  expect_window(view, q, o, out);
  expect_single_rows(o, out);
  window_pass<Entry> pass({ctx, view, q, o, out, window_shape_of(q, o, out, true)});
  for (std::int64_t r = 0; r < out.count();) r = pass.run(r);
  require_finite_planes(ctx, out, q, o.rows);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
