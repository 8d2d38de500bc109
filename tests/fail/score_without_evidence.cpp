// expect: plan: the score does not take (Context&, Evidence const&, score_rows&) in a const call operator
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  template <class Context> void operator()(Context&, kvevict::score_rows&) const {}
};

using view = kvevict::layer_view<std::int32_t>;

auto keep(kvevict::host& ctx, view const& cache) {
  return kvevict::plan(ctx, kvevict::policy{mine{}}, kvevict::contents(cache), {.tokens_per_head = 64});
}
