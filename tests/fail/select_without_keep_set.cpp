// expect: plan: the select stage does not take (Context&, score_rows const&, keep_set_of<Context>&)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  using stage = kvevict::stages::select;
  template <class Context> void operator()(Context&, kvevict::score_rows const&) const {}
};

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::presets::random().with(mine{}), kvevict::contents(cache), {.tokens_per_head = 64});
}
