// expect: observe: a gate reads hidden states; use prompt(cache, features)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

void see(kvevict::host& ctx, view const& cache, kvevict::gate_weights const& w, kvevict::query_rows const& q) {
  kvevict::observe(ctx, kvevict::presets::attention_gate(w), kvevict::step(cache, q), {});
}
