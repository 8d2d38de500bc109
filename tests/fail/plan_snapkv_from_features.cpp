// expect: window_attention: the evidence has no queries and no softmax rows; use prompt(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache, kvevict::feature_rows const& x) {
  return kvevict::plan(ctx, kvevict::presets::snapkv(), kvevict::prompt(cache, x), {.tokens_per_head = 64});
}
