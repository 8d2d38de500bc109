// expect: gate: the evidence has no hidden states and no state; use prompt(cache, features), or observe(...) and
// remembered(cache) SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache, kvevict::gate_weights const& w) {
  return kvevict::plan(ctx, kvevict::presets::attention_gate(w), kvevict::contents(cache), {});
}
