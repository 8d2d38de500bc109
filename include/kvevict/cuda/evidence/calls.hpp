// SPDX-License-Identifier: Apache-2.0
// Whose faults the kernels of plan, observe and scores find.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cuda/context/call.hpp>
#include <kvevict/cuda/context/keep_set.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/evidence/evidence.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Where the state of a view lies, in all its layers. Caches whose tables hold addresses are not told apart: nothing of
/// theirs that the host can see stays the same from call to call.
template <class Entry> observed_states::memory state_memory(layer_view<Entry> const& v) {
  component const* const state = v.find(role::state);
  if (state == nullptr || page_table<Entry>::holds_pointers) return {};
  auto const at = reinterpret_cast<std::uintptr_t>(state->rows.base) + static_cast<std::uintptr_t>(state->rows.offset);
  std::int64_t const layers = std::int64_t{v.pages.layers - 1} * std::max<std::int64_t>(state->rows.layer_stride, 0);
  return {at, at + static_cast<std::uintptr_t>(layers)};
}

/// plan: the keep set's. One that reads the state is refused where what was observed into it was.
template <class Evidence> device::call begin_call(device& ctx, Evidence const& e, budget const& b, keep_set& out) {
  if (!ctx.is_dry()) out.epoch = e.cache.epoch;
  observed_states::memory const state = state_memory(e.cache);
  return device::call(ctx, out.status(), e.cache.sequences(), e.cache.pages.layers, b.layer,
                      has<Evidence, facts::state> ? &state : nullptr);
}
/// observe: the state's.
template <class Evidence, class Policy>
device::call begin_call(device& ctx, Evidence const& e, budget const& b, Policy const&) {
  return device::call(ctx, state_memory(e.cache), e.cache.sequences(), e.cache.pages.layers, b.layer);
}
/// scores: nobody's, as they are read at once.
template <class Evidence> device::call begin_call(device& ctx, Evidence const& e, budget const& b) {
  observed_states::memory const state = state_memory(e.cache);
  return device::call(ctx, ctx.nameless(), e.cache.sequences(), e.cache.pages.layers, b.layer,
                      has<Evidence, facts::state> ? &state : nullptr);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
