// expect: the third argument is no evidence; give contents(cache), prompt(cache, queries), step(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::presets::random(), cache, {.tokens_per_head = 64});
}
