// expect: observe: the evidence has no queries, no softmax rows and no hidden states; use step(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

void see(kvevict::host& ctx, view const& cache) {
  kvevict::observe(ctx, kvevict::presets::h2o(), kvevict::contents(cache), {.tokens_per_head = 64});
}
