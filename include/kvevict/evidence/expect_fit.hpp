// SPDX-License-Identifier: Apache-2.0
// Whether a policy's keep sets are what a cache can follow.
#pragma once

#include <cstdint>
#include <type_traits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/evidence/planning.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What is true of every keep set of a policy.
struct keep_traits {
  bool equal_counts = false, one_set_for_heads = false, one_set_for_layers = false, whole_pages = false,
       newest_stays = false, equal_layers = false;
  bool by_page = false;  // its select stage is handed pages
};

namespace stages {

/// What a stage says of itself, if anything.
template <class Stage>
inline constexpr bool says_one_set = [] {
  if constexpr (requires { Stage::one_set; }) return Stage::one_set;
  return false;
}();
template <class Stage>
inline constexpr bool says_equal_budgets = [] {
  if constexpr (requires { Stage::equal_budgets; }) return Stage::equal_budgets;
  return false;
}();
template <class Stage>
inline constexpr bool says_same_for_all_rows = [] {
  if constexpr (requires { Stage::same_for_all_rows; }) return Stage::same_for_all_rows;
  return false;
}();
template <class Stage>
inline constexpr bool says_differs_by_layer = [] {
  if constexpr (requires { Stage::differs_by_layer; }) return Stage::differs_by_layer;
  return false;
}();
template <class Stage>
inline constexpr bool says_whole_pages = [] {
  if constexpr (requires { Stage::whole_pages; }) return Stage::whole_pages;
  return false;
}();

}  // namespace stages

namespace contract {

/// From what its stages say.
template <class Policy> constexpr keep_traits keeps(Policy const& p) {
  constexpr bool all = planning::ignores_budget<decltype(p.layers)>(),
                 alike = stages::says_same_for_all_rows<decltype(p.score)> && Policy::budgets != sharing::stack;
  return {Policy::equal_counts,
          all || Policy::one_set || (alike && Policy::equal_counts),
          all || stages::says_one_set<decltype(p.layers)> ||
              (alike && stages::says_equal_budgets<decltype(p.layers)> && !Policy::differs_by_layer),
          all || stages::says_whole_pages<decltype(p.select)>,
          all || p.protect.recent >= 1,
          all || (stages::says_equal_budgets<decltype(p.layers)> && Policy::equal_counts),
          stages::says_whole_pages<decltype(p.select)>};
}

/// Layers that keep one set are compared, so they are all there.
inline void expect_stack(std::int32_t layers, std::int32_t of) {
  KVEVICT_EXPECTS(layers == of, "plan: layers::together needs all ", of, " layers in one view, which holds ", layers,
                  "; plan a stack of them (page_table::layers)");
}

/// No row has a token, as far as this context can look: then the layout shows nothing, a table may be null.
template <class Context, class Entry> bool is_empty(layer_view<Entry> const& cache) {
  if constexpr (std::is_same_v<Context, host>) {
    for (std::int64_t r = 0; r < cache.rows(); ++r)
      if (cache.length(static_cast<std::int32_t>(r / cache.heads()), static_cast<std::int32_t>(r % cache.heads())) != 0)
        return false;
    return true;
  }
  return cache.rows() == 0;
}

/// Raises where the cache demands more, and names the stage to add.
template <class Context, class Entry>
void expect_fit(Context const&, layer_view<Entry> const& cache, budget const& want, keep_traits const& is) {
  if (is_empty<Context>(cache)) return;
  capability const must = cache.demands();
  bool const heads = cache.heads() > 1, layers = want.layer_count > 1;
  KVEVICT_EXPECTS(
      !must.one_set_for_heads || !heads || is.one_set_for_heads,
      "plan: the cache keeps one set of tokens for all heads (capability, a component with one row for all, "
      "or a table that all share and whose tokens do not move), but the policy chooses per head; add "
      ".with(heads::together{}), give heads rows of their own, "
      "or say capability::masked where the keep set becomes a mask");
  KVEVICT_EXPECTS(!must.one_set_for_layers || !layers || is.one_set_for_layers,
                  "plan: the cache keeps one set of tokens for all layers (capability, a component with one row for "
                  "all, or a table that all share and whose tokens do not move), but the policy chooses per layer; "
                  "plan a stack of all layers with .with(layers::together{}), "
                  "or say capability::masked where the keep set becomes a mask");
  KVEVICT_EXPECTS(!must.equal_counts || !heads || is.equal_counts,
                  "plan: the heads share a page table (or capability::equal_counts is said), but the policy gives "
                  "heads different numbers of tokens; add .with(heads::uniform{}) or .with(heads::together{}), give "
                  "every head its own table, or say capability::masked where the keep set becomes a mask");
  KVEVICT_EXPECTS(!must.equal_layers || !layers || is.equal_layers,
                  "plan: the cache has one length for all layers (capability::equal_layers), but the policy gives "
                  "layers different numbers of tokens; add .with(layers::uniform{}) or .with(layers::together{})");
  KVEVICT_EXPECTS(
      !(must.whole_pages || (!must.rows_move && !must.masked)) || cache.pages.page_size == 1 || is.whole_pages,
      "plan: the cache gives up whole pages of ", cache.pages.page_size,
      " tokens only (capability, or scales that cover a page), but the policy keeps single tokens; add "
      ".with(select::pages{}) and apply its keep sets by drop_pages, or say capability::masked where they become a "
      "mask");
  KVEVICT_EXPECTS(
      !(must.whole_pages || !must.rows_move) || must.masked || cache.has_one_table(),
      "plan: tokens of the cache do not move (capability, or scales that cover a page), and a component has "
      "pages of its own, which drop_pages and rewrite_table do not name; say capability::masked where the "
      "keep set becomes a mask");
  KVEVICT_EXPECTS(!is.by_page || cache.pages.page_size == 1 || cache.order == row_order::ascending,
                  "plan: select::pages keeps the newest pages, but the rows are scattered, so that a page is of no "
                  "age; compact stably, or list the pages in order of position");
  KVEVICT_EXPECTS(!is.by_page || cache.pages.page_size == 1 || !cache.pages.is_identity(),
                  "plan: select::pages needs a page table, but the cache is contiguous, a page is a whole sequence; "
                  "use select::best and compact, or make a mask of the keep set");
  KVEVICT_EXPECTS(!must.newest_stays || is.newest_stays,
                  "plan: the cache needs the newest token, which the policy does not protect; add .with(protect{}) "
                  "with recent = 1 or more");
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
