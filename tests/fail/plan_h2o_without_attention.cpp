// expect: accumulated_attention: the evidence has no queries, no softmax rows and no state
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::presets::h2o(), kvevict::contents(cache), {.tokens_per_head = 64});
}
