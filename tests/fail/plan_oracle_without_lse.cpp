// expect: so their weights need the LSE; add .with_lse(...)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache, kvevict::query_rows const& q) {
  return kvevict::plan(ctx, kvevict::presets::oracle(), kvevict::future(cache, q), {.tokens_per_head = 64});
}
