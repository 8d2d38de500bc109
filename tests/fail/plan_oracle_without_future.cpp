// expect: future_attention: the oracle needs the true future; use future(cache, queries).with_lse(...)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache, kvevict::query_rows const& q) {
  return kvevict::plan(ctx, kvevict::presets::oracle(), kvevict::prompt(cache, q).with_lse(nullptr, 1, 1),
                       {.tokens_per_head = 64});
}
