// SPDX-License-Identifier: Apache-2.0
// A cache with sequences and no KV heads, by a table that all heads share: every verb does nothing.
#include <kvevict/kvevict.hpp>

#include "support/any_preset.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"

namespace no_heads_test {

using namespace support;
using layouts::layout;

TEST_CASE("laws: no heads: every preset plans no rows, and nothing is moved or freed") {
  batch const in = random_batch(85, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}, .future = 2});
  hand_in rows(in);
  kvevict::host ctx;
  for (layout const l : {layout::nhd, layout::csr, layout::bnsh, layout::pointers, layout::head_pages})
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      CAPTURE(cache.name());
      auto const bytes = cache.snapshot();
      auto view = cache.view;
      view.pages.heads = 0;
      for (any_preset const& p : presets())
        for (form const as : {form::queries, form::lse, form::weights}) {
          CAPTURE(p.name, static_cast<int>(as));
          rows.as = as;
          auto const keep = p.plan(ctx, for_any(p, view), rows, {.tokens_per_head = 20, .layer_count = 2});
          CHECK(keep.kept() == 0);
          auto const done = kvevict::compact(ctx, view, keep);
          CHECK((done.lengths().empty() && done.freed_pages().empty()));
          if (!view.pages.per_head()) CHECK(done.freed_pages(1).empty());
          kvevict::move_plan const moves = kvevict::plan_moves(ctx, view, keep);
          CHECK(moves.moves() == 0);
          CHECK(kvevict::apply(ctx, view, moves).bytes_moved() == 0);
          CHECK(kvevict::replace(ctx, view, keep).slots().empty());
        }
      kvevict::budget const twenty{.tokens_per_head = 20};
      auto state = view.components[0];
      state.what = kvevict::role::state, state.rows.run_bytes = 4, state.alias_of = 0;
      kvevict::observe(ctx, kvevict::presets::h2o(), kvevict::prompt(view.with(state), rows.prompt.queries()), twenty);
      kvevict::observe(ctx, kvevict::presets::h2o(), kvevict::prompt(view.with(state), rows.prompt.rows()), twenty);
      CHECK(cache.snapshot() == bytes);
    });
}

}  // namespace no_heads_test
