// SPDX-License-Identifier: Apache-2.0
// One hot kernel, a number of times: kernels NAME TIMES, to be counted by run.sh.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>
#include <kvevict/presets/ada_snapkv.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/keydiff.hpp>
#include <kvevict/presets/lagkv.hpp>
#include <kvevict/presets/streaming_llm.hpp>

#include "support/input.hpp"

using namespace kvevict;

/// That view with a position of every token, 0 … N − 1; `is_proven`: the engine vouches for their order.
struct with_positions {
  std::vector<std::int32_t> of;  // (pages, P, H)
  layer_view<> view;

  with_positions(bench::shape const& s, layer_view<> const& v, bool is_proven)
      : of(std::size_t(s.N) * std::size_t(s.H)) {
    component p;
    std::int32_t const P = v.pages.page_size;
    p.rows = {reinterpret_cast<std::byte*>(of.data()), 0, s.N / P, P * s.H * 4, 4, s.H * 4, 0, 4, 1};
    p.type = dtype::i32, p.what = role::position;
    view = v.with(p);
    for (std::int32_t h = 0; h < s.H; ++h)
      for (std::int32_t j = 0; j < s.N; ++j) *reinterpret_cast<std::int32_t*>(view.row(p, 0, h, j)) = j;
    [&](auto& any) {
      if constexpr (requires { any.proof; })
        if (is_proven) any.proof = decltype(any.proof)::by_engine;
    }(view);
  }
};

int main(int arguments, char** argument) {
  if (arguments != 3) return std::fputs("kernels NAME TIMES\n", stderr), 2;
  std::string_view const name = argument[1];
  bool const all_rows = name.substr(0, 11) == "column_sums";
  bench::shape s{32, 8, all_rows ? 512 : 2048, 64, 32};
  bench::input in(s, all_rows ? s.N : s.W);
  host ctx;
  score_rows out = in.out();
  out.total_floats = std::int64_t{s.H} * s.N;
  layer_view<> view = in.view();
  component v = *view.find(role::k);  // the same bytes: what counts is how many
  v.what = role::v, v.alias_of = 0;
  auto const q = in.queries(), lse = in.queries_with_lse();
  window_options window{s.W}, gains{s.W};
  gains.weights = weighting::step_gain;
  kernels::window_scores(ctx, view, q, window, out);
  std::vector<std::int32_t> counts(std::size_t(s.H));
  auto const evidence = prompt(view.with(v), q);
  budget const ask{.tokens_per_head = 512};
  keep_set keep = plan(ctx, presets::snapkv(), evidence, ask);
  with_positions const checked(s, view.with(v), false), proven(s, view.with(v), true);
  move_plan moves;

  for (int i = std::atoi(argument[2]); i > 0; --i) {
    if (name == "window_scores")
      kernels::window_scores(ctx, view, q, window, out);
    else if (name == "window_scores_lse")
      kernels::window_scores(ctx, view, lse, window, out);
    else if (name == "step_gain")
      kernels::window_scores(ctx, view, q, gains, out);
    else if (name == "column_sums")
      kernels::column_sums(ctx, view, q, group_reduce::mean, out);
    else if (name == "column_sums_lse")
      kernels::column_sums(ctx, view, lse, group_reduce::mean, out);
    else if (name == "squared_norms")
      kernels::squared_norms(ctx, view, *view.find(role::k), out);
    else if (name == "pool")
      kernels::pool(ctx, pool_options{7, pooling::max}, out);
    else if (name == "require_finite")
      kernels::require_finite(ctx, out);
    else if (name == "select_best")
      kernels::select_best(ctx, out, keep);
    else if (name == "count_pooled")
      kernels::count_pooled(ctx, out, pooled_best{}, counts.data());
    else if (name == "plan_ada_snapkv")
      plan(ctx, presets::ada_snapkv(), evidence, ask, keep);
    else if (name == "plan_snapkv")
      plan(ctx, presets::snapkv(), evidence, ask, keep);
    else if (name == "plan_snapkv_checked")
      plan(ctx, presets::snapkv(), prompt(checked.view, q), ask, keep);
    else if (name == "plan_snapkv_proven")
      plan(ctx, presets::snapkv(), prompt(proven.view, q), ask, keep);
    else if (name == "plan_ahakv")
      plan(ctx, presets::ahakv(), evidence, ask, keep);
    else if (name == "plan_keydiff")
      plan(ctx, presets::keydiff(), contents(view), ask, keep);
    else if (name == "plan_lagkv")
      plan(ctx, presets::lagkv(), contents(view.with(v)), ask, keep);
    else if (name == "plan_streaming")
      plan(ctx, presets::streaming_llm(), contents(view.with(v)), ask, keep);
    else if (name == "plan_moves")
      moves = plan_moves(ctx, view, keep, compaction::stable);
    else if (name == "plan_holes")
      moves = plan_moves(ctx, view, keep, compaction::fill_holes);
    else
      return std::fputs("kernels: there is no kernel of that name\n", stderr), 2;
  }
}
