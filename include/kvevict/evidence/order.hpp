// SPDX-License-Identifier: Apache-2.0
// Rows that a view calls ascending are: one look at the positions that its cache carries.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/view_messages.hpp>
#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// Positions of an ascending row ascend, from 0 or above.
template <class Entry>
void expect_ascending(token_rows<Entry> const& at, std::int32_t b, std::int32_t h, std::int32_t tokens) {
  std::int64_t last = -1;
  bool sound = true;
  each_run(at, 0, tokens, [&](std::int64_t, std::int64_t count, std::byte const* p) {
    auto const position = [&](std::int64_t i) {
      return *reinterpret_cast<std::int32_t const*>(p + i * at.slot_stride);
    };
    sound = sound & (position(0) > last);
    for (std::int64_t i = 1; i < count; ++i) sound = sound & (position(i - 1) < position(i));
    last = position(count - 1);
  });
  if (sound) return;
  last = -1;
  for (std::int32_t j = 0; j < tokens; ++j) {
    std::int32_t const p = *reinterpret_cast<std::int32_t const*>(at(j));
    if (p <= last) messages::not_ascending(b, h, j, last, p);
    last = p;
  }
}

/// Of all rows; one that heads or layers share is looked at once.
template <class Entry> void expect_order(layer_view<Entry> const& cache, budget const& want) {
  component const* const positions = cache.checked_positions();
  if (positions == nullptr) return;
  for (std::int32_t b = 0; b < cache.sequences(); ++b)
    for (std::int32_t h = 0; h < cache.heads() && !want.keeps_whole(b); ++h)
      if (cache.owns(*positions, b, h)) expect_ascending(cache.rows_of(*positions, b, h), b, h, cache.length(b, h));
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
