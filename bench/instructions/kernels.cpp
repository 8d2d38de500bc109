// SPDX-License-Identifier: Apache-2.0
// Calls each hot kernel twice, the second time with valgrind counting, and prints NAME and bytes of scratch: for
// run.sh. With a word, only kernels whose name contains it. Older headers, with which run.sh compares, lack some.
#include <cstdio>
#include <string_view>

#include <valgrind/callgrind.h>

#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/replace.hpp>
#include <kvevict/presets/ada_snapkv.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/keydiff.hpp>
#include <kvevict/presets/lagkv.hpp>
#include <kvevict/presets/streaming_llm.hpp>
#if __has_include(<kvevict/presets/tova.hpp>)
#include <kvevict/presets/tova.hpp>
#endif
#if __has_include(<kvevict/presets/dropkv.hpp>)
#include <kvevict/presets/dropkv.hpp>
#endif

#include "support/input.hpp"

using namespace kvevict;

namespace {

std::string_view word;

/// One call that takes scratch as it needs it, then one that counts.
template <class Call> void count(char const* name, Call const& call) {
  if (std::string_view(name).find(word) == std::string_view::npos) return;
  host ctx;
  call(ctx);
  CALLGRIND_START_INSTRUMENTATION;
  call(ctx);
  CALLGRIND_STOP_INSTRUMENTATION;
  CALLGRIND_DUMP_STATS_AT(name);
  std::printf("%s %lld\n", name, static_cast<long long>(ctx.scratch().high_water()));
}

/// The input's cache with values, which are its keys: how many there are is what counts.
layer_view<> with_values(layer_view<> const& view) {
  component v = *view.find(role::k);
  v.what = role::v, v.alias_of = 0;
  return view.with(v);
}

/// Heads may keep different tokens, though they share a page table.
layer_view<> for_masks(layer_view<> const& view) {
  return [](auto const& any) {
    if constexpr (requires { any.with_capability({.masked = true}); })
      return any.with_capability({.masked = true});
    else
      return any;
  }(view);
}

/// That view with four bytes a token more, in pages (pages, H, P): its position, or its state.
struct with_component {
  std::vector<std::int32_t> of;
  layer_view<> view;

  with_component(bench::shape const& s, layer_view<> const& v, role what)
      : of(std::size_t(s.N) * std::size_t(s.H)) {
    component c;
    std::int32_t const P = v.pages.page_size;
    c.rows = {reinterpret_cast<std::byte*>(of.data()), 0, s.N / P, P * s.H * 4, P * 4, 4, 0, 4, 1};
    c.type = what == role::position ? dtype::i32 : dtype::f32, c.what = what;
    view = v.with(c);
    for (std::int32_t h = 0; what == role::position && h < s.H; ++h)
      for (std::int32_t j = 0; j < s.N; ++j) *reinterpret_cast<std::int32_t*>(view.row(c, 0, h, j)) = j;
  }
  /// The engine vouches for the order of its positions.
  layer_view<> proven() const {
    layer_view<> out = view;
    [](auto& any) {
      if constexpr (requires { any.proof; }) any.proof = decltype(any.proof)::by_engine;
    }(out);
    return out;
  }
};

/// Softmax rows of 1/N.
struct equal_weights {
  std::vector<float> of;
  attention_rows rows;

  equal_weights(bench::shape const& s, query_rows const& q)
      : of(std::size_t(q.row_begin[1]) * std::size_t(s.Hq) * std::size_t(s.N), 1.0f / static_cast<float>(s.N)) {
    rows.weights = of.data(), rows.token_stride = std::int64_t{s.Hq} * s.N, rows.head_stride = s.N;
    rows.heads = s.Hq, rows.slots = s.N, rows.row_begin = q.row_begin, rows.positions = q.positions;
  }
};

score_rows rows_of(bench::input& in, bench::shape const& s) {
  score_rows out = in.out();
  out.total_floats = std::int64_t{s.H} * s.N;
  for (std::int32_t h = 0; h < s.H; ++h) out.rows[h].budget = s.N / 4;
  return out;
}

void scores_of_windows(bench::shape const& s) {
  bench::input in(s, s.W);
  layer_view<> const view = in.view();
  auto const q = in.queries(), lse = in.queries_with_lse();
  window_options window{s.W}, gains{s.W};
  gains.weights = weighting::step_gain;
  score_rows const out = rows_of(in, s);
  count("window_scores", [&](host& ctx) { kernels::window_scores(ctx, view, q, window, out); });
  count("window_scores_lse", [&](host& ctx) { kernels::window_scores(ctx, view, lse, window, out); });
  count("step_gain", [&](host& ctx) { kernels::window_scores(ctx, view, q, gains, out); });
}

void scores_of_tokens(bench::shape const& s) {
  bench::input in(s, s.W);
  layer_view<> const view = in.view();
  score_rows const out = rows_of(in, s);
  count("squared_norms", [&](host& ctx) { kernels::squared_norms(ctx, view, *view.find(role::k), out); });
  auto const q = in.queries();
  kernels::window_scores(*std::make_unique<host>(), view, q, window_options{s.W}, out);
  count("require_finite", [&](host& ctx) { kernels::require_finite(ctx, out); });
  keep_set keep;
  count("select_best", [&](host& ctx) { kernels::select_best(ctx, out, keep); });
  std::vector<std::int32_t> counts(std::size_t(s.H));
  count("count_pooled", [&](host& ctx) { kernels::count_pooled(ctx, out, pooled_best{}, counts.data()); });
  count("pool", [&](host& ctx) { kernels::pool(ctx, pool_options{7, pooling::max}, out); });
}

void sums_of_columns(bench::shape const& s) {
  bench::input in(s, s.N);
  layer_view<> const view = in.view();
  auto const q = in.queries(), lse = in.queries_with_lse();
  score_rows const out = rows_of(in, s);
  count("column_sums", [&](host& ctx) { kernels::column_sums(ctx, view, q, group_reduce::mean, out); });
  count("column_sums_lse", [&](host& ctx) { kernels::column_sums(ctx, view, lse, group_reduce::mean, out); });
  keep_set keep;
  count("plan_h2o", [&](host& ctx) {
    plan(ctx, presets::h2o(), prompt(with_values(view), lse), {.tokens_per_head = s.N / 4}, keep);
  });
}

void plans(bench::shape const& s) {
  bench::input in(s, s.W);
  auto const q = in.queries();
  layer_view<> const view = with_values(in.view());
  with_component const positions(s, view, role::position);
  budget const ask{.tokens_per_head = s.N / 4};
  keep_set keep;
  auto const count_plan = [&](char const* name, auto const& policy, auto const& evidence) {
    count(name, [&](host& ctx) { plan(ctx, policy, evidence, ask, keep); });
  };
  count_plan("plan_streaming_llm", presets::streaming_llm(), contents(view));
  count_plan("plan_snapkv", presets::snapkv(), prompt(view, q));
  count_plan("plan_snapkv_checked", presets::snapkv(), prompt(positions.view, q));
  count_plan("plan_snapkv_proven", presets::snapkv(), prompt(positions.proven(), q));
  count_plan("plan_ada_snapkv", presets::ada_snapkv(), prompt(for_masks(view), q));
  count_plan("plan_ahakv", presets::ahakv(), prompt(view, q));
  count_plan("plan_keydiff", presets::keydiff(), contents(view));
  count_plan("plan_lagkv", presets::lagkv(), contents(view));
#if __has_include(<kvevict/presets/tova.hpp>)
  count_plan("plan_tova", presets::tova(), prompt(view, q));
#endif
#if __has_include(<kvevict/presets/dropkv.hpp>)
  count_plan("plan_dropkv", presets::dropkv(), prompt(view, q));
#endif
}

/// A step of decoding: the newest token is observed; one token goes.
void steps(bench::shape const& s) {
  bench::input in(s, 1);
  std::int32_t const newest = s.N - 1;
  auto q = in.queries(), lse = in.queries_with_lse();
  q.positions = lse.positions = &newest;
  with_component const state(s, with_values(in.view()), role::state);
  equal_weights const softmax(s, q);
  auto const policy = presets::h2o();
  budget const ask{.tokens_per_head = newest};
  count("observe_softmax", [&](host& ctx) { observe(ctx, policy, step(state.view, softmax.rows), ask); });
  count("observe", [&](host& ctx) { observe(ctx, policy, step(state.view, q), ask); });
  count("observe_lse", [&](host& ctx) { observe(ctx, policy, step(state.view, lse), ask); });
  keep_set keep;
  count("plan_remembered", [&](host& ctx) { plan(ctx, policy, remembered(state.view), ask, keep); });
  plan(*std::make_unique<host>(), policy, remembered(state.view), ask, keep);
  replaced slots;
  count("replace", [&](host& ctx) { replace(ctx, state.view, keep, slots); });
}

void compaction_of(bench::shape const& s) {
  bench::input in(s, s.W);
  layer_view<> const view = in.view();
  host ctx;
  keep_set const keep = plan(ctx, presets::snapkv(), prompt(with_values(view), in.queries()),
                             {.tokens_per_head = s.N / 4});
  compacted<std::int32_t> done;
  move_plan planned;
  count("plan_moves", [&](host& c) { planned = plan_moves(c, view, keep, compaction::stable); });
  count("plan_holes", [&](host& c) { planned = plan_moves(c, view, keep, compaction::fill_holes); });
  count("compact", [&](host& c) { compact(c, view, keep, compaction::stable, done); });
  count("compact_holes", [&](host& c) { compact(c, view, keep, compaction::fill_holes, done); });
}

}  // namespace

int main(int arguments, char** argument) {
  if (arguments > 1) word = argument[1];
  bench::shape const s{4, 2, 1024, 64, 32}, small{4, 1, 512, 64, 32};
  scores_of_windows(s);
  scores_of_tokens(s);
  sums_of_columns(small);
  plans(s);
  steps(s);
  compaction_of(s);
}
