// SPDX-License-Identifier: Apache-2.0
// The select stage for caches that give up whole pages only.
#pragma once

#include <concepts>

#include <kvevict/kernels/pages.hpp>
#include <kvevict/select/best.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace select {

/// Keeps or drops pages of the cache's table, by the scores of their tokens; `drop_pages` applies it.
///
///   s(p) = 1/P · Σ_i s(p·P + i)      or the largest;   score descending, newer page first
///
/// A page with a protected token (sinks, recent, read-only) stays whole. The part-filled last page, of t = N mod P
/// tokens, stays and counts what it holds. Beside it a budget of B tokens keeps as many full pages as it holds:
///
///   kept = t + P·⌊(B − t)/P⌋         of a row; where heads, or layers under layers::pyramid, share a budget, of all
///                                    together: Σ kept = Σ t + P·⌊(Σ B − Σ t)/P⌋
///
/// So no more than the budget, and less by no whole page. What protect's recent_permille asks for takes the newest
/// pages that the budget holds. Head stages see pages where they see tokens: heads::adaptive divides them,
/// heads::threshold counts pages above τ, its floor is one of pages, heads::together reduces their scores.
/// Shapes   scores (H,M) → scores of pages (H,M/P) → slots.
/// Cost     a read of the scores, select::best of N/P; scratch 4 bytes a page.
/// Errors   contract_violation: a budget below the tokens of the pages that stay in any case (the message tells one
///          that does at every length); rows that are not in order of position; a contiguous cache.
struct pages {
  using stage = stages::select;
  static constexpr bool whole_pages = true;  // plan() hands it rows of pages, by `reduce`
  page_reduce reduce = page_reduce::mean;

  template <class Context, class KeepSet> void operator()(Context& ctx, score_rows const& rows, KeepSet& out) const {
    if (rows.page_size == 1)
      kernels::select_best(ctx, rows, out);
    else
      kernels::select_pages(ctx, rows, out);
  }
  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::select_best.bytes(ctx, s);
  }
};

/// Of a select stage that says whole_pages: it tells what a page's score is.
template <class Stage>
concept reduces_pages = requires(Stage const& stage) {
  { stage.reduce } -> std::convertible_to<page_reduce>;
};

}  // namespace select
}  // namespace KVEVICT_ABI
}  // namespace kvevict
