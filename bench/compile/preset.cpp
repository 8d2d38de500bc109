// SPDX-License-Identifier: Apache-2.0
// at most 62500 lines, 435 headers
// A user's file that calls one policy, by the headers that it needs.
#include <kvevict/apply/compact.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/snapkv.hpp>

kvevict::compacted<std::int32_t> evict(kvevict::host& ctx, kvevict::layer_view<std::int32_t> const& cache,
                                       kvevict::query_rows const& queries) {
  auto const policy = kvevict::presets::snapkv({.window = 32});
  return compact(ctx, cache, plan(ctx, policy, kvevict::prompt(cache, queries), {.tokens_per_head = 1024}));
}
