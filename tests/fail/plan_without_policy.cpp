// expect: the second argument is no policy; give a preset, or policy{score, protect} of your own
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::score::none{}, kvevict::contents(cache), {.tokens_per_head = 64});
}
