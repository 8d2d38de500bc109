// expect: policy: layers::together keeps one set for all layers, heads::table gives each another
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  auto const one_set = kvevict::presets::random().with(kvevict::layers::together{});
  return kvevict::plan(ctx, one_set.with(kvevict::heads::table{}), kvevict::contents(cache), {.tokens_per_head = 64});
}
