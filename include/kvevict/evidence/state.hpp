// SPDX-License-Identifier: Apache-2.0
// The state that a policy keeps in a cache.
#pragma once

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// The state component that `observe` fills and plan() reads back.
template <class Entry>
component const& state_of(char const* verb, layer_view<Entry> const& cache, std::int32_t floats) {
  component const* state = cache.find(role::state);
  KVEVICT_EXPECTS(state != nullptr && state->type == dtype::f32 && state->rows.n_runs == 1 && state->width() == floats,
                  verb, ": the cache needs a role::state component of ", floats,
                  " f32 per slot in one run; add it with cache.with(component)");
  KVEVICT_EXPECTS(cache.pages.per_head() || !cache.shared_by_heads(*state), verb,
                  ": the heads have one state component in common, into which each would write its own; give it a "
                  "row per head (head_stride)");
  return *state;
}

}  // namespace contract

/// Floats per slot that the policy's state component must have; 0 when it keeps none.
template <class Policy> constexpr std::int32_t state_floats(Policy const& p) {
  if constexpr (requires { p.score.state_floats(); })
    return p.score.state_floats();
  else
    return 0;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
