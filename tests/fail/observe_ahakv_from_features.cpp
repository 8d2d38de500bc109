// expect: recent_attention: the evidence has no queries and no softmax rows; use step(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

void see(kvevict::host& ctx, view const& cache, kvevict::feature_rows const& x) {
  kvevict::observe(ctx, kvevict::presets::ahakv(), kvevict::step(cache, x), {.tokens_per_head = 64});
}
