// SPDX-License-Identifier: Apache-2.0
// Rows that are to keep one set of tokens hold the same tokens.
#pragma once

#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/fault.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/together.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// What keeps a row from going with the first of its group; positions are compared apart. Rows kept whole need nothing.
constexpr fault apart_from(row const& first, row const& it) {
  if (!first.active && !it.active) return fault::none;
  if (first.tokens != it.tokens) return fault::lengths_apart;
  return first.budget != it.budget || first.candidates != it.candidates ? fault::budgets_apart : fault::none;
}

/// Positions that rows of a group may not share; null where they do, or where there are none and slots count.
template <class Entry> constexpr component const* own_positions(layer_view<Entry> const& cache, together_over over) {
  component const* const c = cache.find(role::position);
  bool const common =
      c == nullptr || (over == together_over::heads ? cache.shared_by_heads(*c) : cache.shared_by_layers(*c));
  return common ? nullptr : c;
}

/// False where the view itself keeps rows of a group together: heads of one table have one length.
template <class Entry> constexpr bool may_differ(layer_view<Entry> const& cache, together_over over) {
  return over == together_over::layers || cache.pages.per_head() || own_positions(cache, over) != nullptr;
}

}  // namespace planning

namespace kernels {

void has_kernel(same_tokens_tag, host&);

/// Raises where the heads of a sequence, or the layers of a stack, differ in lengths, budgets or positions.
///
/// Cost     O(rows), and O(tokens) where a position component has rows of their own.
template <class Entry>
void kernel(same_tokens_tag, host&, layer_view<Entry> const& cache, score_rows const& rows, together_over over) {
  row_group const group(rows.sequences, rows.heads, cache.pages.layers, over);
  component const* const positions = planning::own_positions(cache, over);
  for (std::int64_t r = 0; r < rows.count() && group.count > 1 && planning::may_differ(cache, over); ++r) {
    row const &it = rows.rows[r], &first = rows.rows[group.first(r)];
    auto const what = planning::apart_from(first, it);
    if (what != fault::none)
      messages::rows_apart(over == together_over::layers, what == fault::lengths_apart, it.sequence, it.head,
                           group.of_layer, first.tokens, it.tokens);
    if (positions == nullptr || !it.active || &it == &first) continue;
    auto const here = cache.rows_of(*positions, it.sequence, it.head),
               there = cache.rows_of(*positions, first.sequence, first.head);
    for (std::int32_t j = 0; j < it.tokens; ++j) {
      auto const p = *reinterpret_cast<std::int32_t const*>(there(j)),
                 q = *reinterpret_cast<std::int32_t const*>(here(j));
      if (p != q)
        messages::positions_apart(over == together_over::layers, it.sequence, it.head, group.of_layer, j, p, q);
    }
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
