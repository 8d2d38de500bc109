// SPDX-License-Identifier: Apache-2.0
// Rows that are to keep one set of tokens hold the same tokens.
#pragma once

#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/fault.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/visibility.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/together.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// Rows that are to keep the same tokens, or as many: which they are, and what they see.
struct alike {
  together_over over;
  bool counts_alone = false;
  visibility sees{};
};

/// What keeps a row from going with the first of its group; positions are compared apart. Rows kept whole need nothing,
/// heads that are to keep as many no more than one budget; layers that are have one length.
template <class Entry>
constexpr fault apart_from(layer_view<Entry> const& cache, alike const& what, row const& first, row const& it) {
  if (!first.active && !it.active) return fault::none;
  bool const cut_alike = what.counts_alone && what.over == together_over::heads && first.active == it.active;
  if (first.tokens != it.tokens && !cut_alike) return fault::lengths_apart;
  if (first.active != it.active || first.budget != it.budget) return fault::budgets_apart;
  bool const begin = first.candidates == it.candidates &&
                     cache.read_only_tokens(first.sequence) == cache.read_only_tokens(it.sequence) &&
                     what.sees.padding(first.sequence) == what.sees.padding(it.sequence);
  return begin || what.counts_alone ? fault::none : fault::budgets_apart;
}

/// Positions that rows of a group may not share; null where they do, or where there are none and slots count.
template <class Entry> constexpr component const* own_positions(layer_view<Entry> const& cache, alike const& what) {
  component const* const c = cache.find(role::position);
  bool const common = c == nullptr || what.counts_alone ||
                      (what.over == together_over::heads ? cache.shared_by_heads(*c) : cache.shared_by_layers(*c));
  return common ? nullptr : c;
}

/// False where the view itself keeps rows of a group together: heads of one table have one length.
template <class Entry> constexpr bool may_differ(layer_view<Entry> const& cache, alike const& what) {
  return what.over == together_over::layers || cache.pages.per_head() || own_positions(cache, what) != nullptr;
}

}  // namespace planning

namespace kernels {

void has_kernel(same_tokens_tag, host&);

/// Raises where the heads of a sequence, or the layers of a stack, differ in lengths, budgets, positions, read-only
/// prefixes or padding; where they are to keep as many, layers in the first two, heads in what stays of them.
///
/// Cost     O(rows), and O(tokens) where a position component has rows of their own.
template <class Entry>
void kernel(same_tokens_tag, host&, layer_view<Entry> const& cache, score_rows const& rows,
            planning::alike const& like) {
  row_group const group(rows.sequences, rows.heads, cache.pages.layers, like.over);
  component const* const positions = planning::own_positions(cache, like);
  bool const layers = like.over == together_over::layers;
  for (std::int64_t r = 0; r < rows.count() && group.count > 1 && planning::may_differ(cache, like); ++r) {
    row const &it = rows.rows[r], &first = rows.rows[group.first(r)];
    auto const what = planning::apart_from(cache, like, first, it);
    if (what != fault::none)
      messages::rows_apart(layers, what == fault::lengths_apart, it.sequence, it.head, group.of_layer, first.tokens,
                           it.tokens);
    if (positions == nullptr || !it.active || &it == &first) continue;
    auto const here = cache.rows_of(*positions, it.sequence, it.head),
               there = cache.rows_of(*positions, first.sequence, first.head);
    for (std::int32_t j = 0; j < it.tokens; ++j) {
      auto const p = *reinterpret_cast<std::int32_t const*>(there(j)),
                 q = *reinterpret_cast<std::int32_t const*>(here(j));
      if (p != q) messages::positions_apart(layers, it.sequence, it.head, group.of_layer, j, p, q);
    }
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
