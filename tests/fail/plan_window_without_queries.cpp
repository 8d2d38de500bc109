// expect: window_attention: the evidence has no queries and no softmax rows; use prompt(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::presets::ada_snapkv(), kvevict::contents(cache), {.tokens_per_head = 64});
}
