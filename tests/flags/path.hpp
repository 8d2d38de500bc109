// SPDX-License-Identifier: Apache-2.0
// The whole path, for units of different flags: a prompt is observed, planned and compacted, by policies of every kind.
#pragma once

#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/replace.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/ada_snapkv.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>

namespace {

constexpr int H = 2, N = 64, D = 16;

kvevict::component rows_of(void* data, kvevict::role what, kvevict::dtype type, int width) {
  kvevict::component c;
  c.what = what, c.type = type;
  c.rows.base = static_cast<std::byte*>(data), c.rows.page_count = H * 4, c.rows.page_stride = N / 4 * width * 4;
  c.rows.slot_stride = width * 4, c.rows.run_bytes = width * 4;
  return c;
}

/// A sum of counts that every unit agrees on.
int whole_path() {
  static float keys[H * N * D], values[H * N * D], queries[N * H * D], state[H * N];
  static std::int32_t positions[N], table[H * 4], lengths[H] = {N, N};
  std::int32_t const row_begin[] = {0, N};
  for (int i = 0; i < H * N * D; ++i)
    keys[i] = static_cast<float>(i * 37 % 101 - 50) / 50, values[i] = queries[i] = keys[i] / 2;
  for (int i = 0; i < N; ++i) positions[i] = i;
  for (int i = 0; i < H * 4; ++i) table[i] = i;

  kvevict::layer_view<> cache;
  cache.pages.entries = table, cache.pages.seq_stride = H * 4, cache.pages.head_stride = 4;
  cache.pages.sequences = 1, cache.pages.heads = H, cache.pages.columns = 4, cache.pages.page_size = N / 4;
  cache.lengths = {lengths, H, 1};
  cache = cache.with(rows_of(keys, kvevict::role::k, kvevict::dtype::f32, D))
              .with(rows_of(values, kvevict::role::v, kvevict::dtype::f32, D));
  kvevict::query_rows q;
  q.data = queries, q.token_stride = H * D, q.head_stride = D, q.heads = H, q.head_dim = D;
  q.row_begin = row_begin, q.positions = positions;

  kvevict::host ctx;
  kvevict::budget want;
  want.tokens_per_head = 24;
  auto const h2o = kvevict::presets::h2o();
  auto const with_state = cache.with(rows_of(state, kvevict::role::state, kvevict::dtype::f32, 1));
  kvevict::observe(ctx, h2o, kvevict::prompt(with_state, q), want);
  auto const first = kvevict::plan(ctx, h2o, kvevict::remembered(with_state), want);

  int sum = static_cast<int>(first.kept());
#if !defined(__OPTIMIZE__)  // where functions are not inlined, most of them have a symbol of their own
  std::vector<float> x;
  kvevict::scores(ctx, kvevict::presets::ahakv({8}), kvevict::prompt(cache, q), want, x);
  auto const second = kvevict::plan(ctx, kvevict::presets::ada_snapkv({8}), kvevict::prompt(cache, q), want);
  sum += static_cast<int>(
      second.kept() +
      kvevict::replace(ctx, cache, kvevict::plan(ctx, kvevict::presets::h2o(), kvevict::prompt(cache, q), {N}))
          .slot(0, 0));
#endif
  auto const done = kvevict::compact(ctx, cache, first, kvevict::compaction::fill_holes);
  return sum + done.lengths()[0] + done.lengths()[1];
}

/// 1 when bad input is caught.
int catches() {
#if defined(__cpp_exceptions)
  try {
    kvevict::host ctx(kvevict::executor{nullptr});
  } catch (kvevict::contract_violation const&) {
    return 1;
  }
#endif
  return 0;
}

}  // namespace
