// expect: the first argument is no context; give a kvevict::host or a kvevict::cuda::device
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::executor& pool, view const& cache) {
  return kvevict::plan(pool, kvevict::presets::random(), kvevict::contents(cache), {.tokens_per_head = 64});
}
