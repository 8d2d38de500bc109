// expect: it needs a member `page_reduce reduce`, which says what a page's score is
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct oldest_pages {
  using stage = kvevict::stages::select;
  static constexpr bool whole_pages = true;
  template <class Context, class KeepSet>
  void operator()(Context& ctx, kvevict::score_rows const& rows, KeepSet& out) const {
    kvevict::kernels::select_pages(ctx, rows, out);
  }
};

void f(kvevict::host& ctx, kvevict::layer_view<> const& view, kvevict::keep_set& out) {
  auto const policy = kvevict::presets::random().with(oldest_pages{});
  kvevict::plan(ctx, policy, kvevict::contents(view), {.tokens_per_head = 8}, out);
}
