// expect: the third argument is no evidence; give contents(cache), prompt(cache, queries), step(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

auto keep(kvevict::host& ctx, kvevict::keep_set const& cache) {
  return kvevict::plan(ctx, kvevict::presets::random(), kvevict::evidence<kvevict::keep_set>{cache},
                       {.tokens_per_head = 64});
}
