// expect: window_attention: the evidence has no queries and no softmax rows
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::presets::snapkv(), kvevict::remembered(cache), {.tokens_per_head = 64});
}
