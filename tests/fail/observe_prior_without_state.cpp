// expect: observe: this policy's score keeps no state; it can be planned from a prompt alone
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

void see(kvevict::host& ctx, view const& cache, kvevict::query_rows const& q) {
  kvevict::observe(ctx, kvevict::policy{kvevict::score::value_prior{kvevict::score::window_attention{}}},
                   kvevict::step(cache, q), {.tokens_per_head = 64});
}
