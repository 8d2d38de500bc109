// SPDX-License-Identifier: Apache-2.0
// What bench/run.sh --cuda-static and --cuda look at: one layer of one sequence, 32 query heads, 8 KV heads, D 128,
// window 32, in bf16.
#pragma once

#include <kvevict/cuda.cuh>

namespace bench {

namespace cuda = kvevict::cuda;
namespace kernels = kvevict::kernels;

struct shape {
  // 20 %
  std::int32_t q_heads = 32, heads = 8, head_dim = 128, window = 32, page_size = 16, tokens = 32768, budget = 6554;
};

/// A view over memory that need not exist: for trying out. `page_of_heads` tables, one per head, so that heads may keep
/// different counts.
struct layer {
  kvevict::layer_view<> view;
  kvevict::query_rows window_queries, all_queries;

  layer(shape const& s, std::byte* k, std::byte* v, std::int32_t const* table, std::int32_t const* lengths,
        std::byte* queries, std::int32_t const* window_begin, std::int32_t const* all_begin, float const* lse) {
    std::int32_t const pages = s.tokens / s.page_size, row = s.head_dim * 2;
    view.pages.entries = table, view.pages.sequences = 1, view.pages.heads = s.heads, view.pages.columns = pages,
    view.pages.page_size = s.page_size;
    view.pages.seq_stride = std::int64_t{pages} * s.heads, view.pages.head_stride = pages;
    view.lengths = {lengths, s.heads, 1};
    auto const component = [&](kvevict::role what, std::byte* base) {
      kvevict::component c;
      c.rows = {base, 0, std::int64_t{pages} * s.heads, std::int64_t{s.page_size} * row, 0, row, 0, row, 1};
      c.type = kvevict::dtype::bf16, c.what = what;
      view = view.with(c);
    };
    component(kvevict::role::k, k), component(kvevict::role::v, v);
    window_queries.data = queries, window_queries.type = kvevict::dtype::bf16;
    window_queries.head_stride = s.head_dim, window_queries.token_stride = std::int64_t{s.q_heads} * s.head_dim;
    window_queries.heads = s.q_heads, window_queries.head_dim = s.head_dim;
    all_queries = window_queries;
    window_queries.row_begin = window_begin, window_queries.most_rows = s.window;
    all_queries.row_begin = all_begin, all_queries.most_rows = s.tokens;
    all_queries.lse = lse, all_queries.lse_token_stride = s.q_heads, all_queries.lse_head_stride = 1;
    all_queries.sum = kvevict::row_sum::at_most_one;  // any LSE that no sum reaches will do: the work is the same
  }
};

/// That view as a stack: the layers' pools lie one behind the other, one table serves all.
inline kvevict::layer_view<> stack_of(layer const& l, std::int32_t layers, std::int32_t const* lengths) {
  kvevict::layer_view<> v = l.view;
  v.pages.sequences = v.pages.layers = layers;
  v.lengths.data = lengths;  // (L, H)
  for (std::int32_t c = 0; c < v.component_count; ++c) {
    kvevict::row_map& m = v.components[static_cast<std::size_t>(c)].rows;
    m.layer_stride = m.page_count * m.page_stride;
  }
  return v;
}

/// Where verbs put what they find; it goes before its stream does.
struct outputs {
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
};

/// One verb: its name as in bench/time, the least bytes that it must read and write, its flops (of tensor cores), and
/// the call.
struct verb {
  char const* name;
  double bytes, flops;
  void (*call)(cuda::device&, layer const&, shape const&, outputs&);
};

template <class F> void with_rows(cuda::device& ctx, layer const& l, shape const& s, F f) {
  kvevict::frame scratch(ctx.scratch());
  auto rows = kernels::plan_rows(ctx, scratch, l.view, kvevict::protect{0, s.window}, kvevict::layers::uniform{},
                                 kvevict::budget{.tokens_per_head = s.budget}, kvevict::sharing::heads);
  f(rows);
}

inline std::vector<verb> verbs(shape const& s) {
  double const keys = double(s.heads) * s.tokens * s.head_dim * 2, scores = double(s.heads) * s.tokens * 4,
               queries = double(s.q_heads) * s.window * s.head_dim * 2;
  double const pairs = double(s.q_heads) * s.window * s.tokens, causal = double(s.q_heads) * s.tokens * s.tokens / 2,
               kept = double(s.heads) * s.budget;
  return {
      // what all but plans pay besides
      {"rows", 0, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) { with_rows(ctx, l, z, [](auto&) {}); }},
      {"window_scores/lse", keys + queries + scores, 2 * pairs * s.head_dim,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) {
         with_rows(ctx, l, z, [&](auto& rows) {
           auto q = l.window_queries;
           q.lse = l.all_queries.lse, q.lse_token_stride = z.q_heads, q.lse_head_stride = 1;
           q.sum = l.all_queries.sum;
           kernels::window_scores(ctx, l.view, q, kvevict::window_options{z.window}, rows);
         });
       }},
      {"window_scores", keys + queries + scores, 4 * pairs * s.head_dim,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) {
         with_rows(ctx, l, z, [&](auto& rows) {
           kernels::window_scores(ctx, l.view, l.window_queries, kvevict::window_options{z.window}, rows);
         });
       }},
      {"column_sums/lse", keys + keys * s.q_heads / s.heads + scores, 2 * causal * s.head_dim,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) {
         with_rows(ctx, l, z, [&](auto& rows) {
           kernels::column_sums(ctx, l.view, l.all_queries, kvevict::group_reduce::mean, rows);
         });
       }},
      {"squared_norms", keys + scores, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) {
         with_rows(ctx, l, z,
                   [&](auto& rows) { kernels::squared_norms(ctx, l.view, *l.view.find(kvevict::role::v), rows); });
       }},
      {"pool", 2 * scores, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) {
         with_rows(ctx, l, z, [&](auto& rows) { kernels::pool(ctx, kvevict::pool_options{7}, rows); });
       }},
      {"select_best", scores + kept * 4, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         with_rows(ctx, l, z, [&](auto& rows) { kernels::select_best(ctx, rows, out.keep); });
       }},
      {"ada", scores, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs&) {
         with_rows(ctx, l, z, [&](auto& rows) { kvevict::heads::adaptive{}(ctx, rows); });
       }},
      {"plan/ada_snapkv", keys + queries + scores + kept * 4, 4 * pairs * s.head_dim,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         kvevict::plan(ctx, kvevict::presets::ada_snapkv({.window = 32}), kvevict::prompt(l.view, l.window_queries),
                       {.tokens_per_head = z.budget}, out.keep);
       }},
      {"plan/h2o", keys + keys * s.q_heads / s.heads + scores + kept * 4, 2 * causal * s.head_dim,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         kvevict::plan(ctx, kvevict::presets::h2o(),
                       kvevict::prompt(l.view, l.all_queries).with_lse(l.all_queries.lse, z.q_heads, 1),
                       {.tokens_per_head = z.budget}, out.keep);
       }},
      {"plan/ahakv", 2 * keys + queries + scores + kept * 4, 4 * pairs * s.head_dim,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         kvevict::plan(ctx, kvevict::presets::ahakv({.recent = 32}), kvevict::prompt(l.view, l.window_queries),
                       {.tokens_per_head = z.budget}, out.keep);
       }},
      {"compact", 4 * kept * s.head_dim * 2, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         if (ctx.is_dry()) out.keep.resize(ctx, 1, z.heads, z.tokens);
         compact(ctx, l.view, out.keep, kvevict::compaction::stable, out.done);
       }},
      {"compact/fill_holes", 4 * kept * s.head_dim * 2, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         if (ctx.is_dry()) out.keep.resize(ctx, 1, z.heads, z.tokens);
         compact(ctx, l.view, out.keep, kvevict::compaction::fill_holes, out.done);
       }},
      {"compact/layers:32", 32 * 4 * kept * s.head_dim * 2, 0,
       [](cuda::device& ctx, layer const& l, shape const& z, outputs& out) {
         if (ctx.is_dry()) out.keep.resize(ctx, 32, z.heads, z.tokens);
         compact(ctx, stack_of(l, 32, l.view.lengths.data), out.keep, kvevict::compaction::stable, out.done);
       }},
  };
}

}  // namespace bench
