// SPDX-License-Identifier: Apache-2.0
// at most 66700 lines, 526 headers
// A user's file that calls one policy, by the umbrella.
#include <kvevict/kvevict.hpp>

kvevict::compacted<std::int32_t> evict(kvevict::host& ctx, kvevict::layer_view<std::int32_t> const& cache,
                                       kvevict::query_rows const& queries) {
  auto const policy = kvevict::presets::snapkv({.window = 32});
  return compact(ctx, cache, plan(ctx, policy, kvevict::prompt(cache, queries), {.tokens_per_head = 1024}));
}
