// expect: plan: the heads stage does not take (Context&, score_rows&) in a const call operator
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  using stage = kvevict::stages::heads;
  static constexpr bool equal_counts = true;
  void operator()(kvevict::score_rows&) const {}
};

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::presets::random().with(mine{}), kvevict::contents(cache), {.tokens_per_head = 64});
}
