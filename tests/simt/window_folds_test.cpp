// SPDX-License-Identifier: Apache-2.0
// Scores of window rows beyond their mean on a device: rows pooled across blocks, in every layout, and the scores that
// stand on others.
#include "simt/scores_alike.hpp"

namespace window_folds_test {

using namespace simt_test;

TEST_CASE("a device finds the largest weight of pooled window rows as the host does, in every layout") {
  batch const in = random_batch(51, {.Hq = 4, .H = 2, .D = 24, .N = {270, 33}, .future = 0});
  attention const rows = all_rows(in);
  for (layouts::layout const l : layouts::all) {
    layouts::cache_shape shape = cache_shape_of(in);
    shape.type = l == layouts::layout::nhd ? kvevict::dtype::bf16 : kvevict::dtype::f32;
    with_cache(l, shape, in, [&](auto& cache) {
      CAPTURE(cache.name());
      all_alike(cache, presets::defensivekv({.window = 8}), rows);
      if (l == layouts::layout::hnd)
        for (int const width : {1, 33}) all_alike(cache, presets::defensivekv({.window = 20, .pool = width}), rows, 40);
    });
  }
}

TEST_CASE("a device that pools softmax rows reads none before the first token's weight") {
  batch const in = random_batch(54, {.Hq = 2, .H = 1, .D = 8, .N = {40}, .future = 0});
  attention const rows = last_rows(in, 8);  // so that the first row handed in is one of the window
  layouts::cache_shape shape = cache_shape_of(in);
  shape.positions = 0;
  with_cache(layouts::layout::hnd, shape, in,
             [&](auto& cache) { all_alike(cache, presets::defensivekv({.window = 8}), rows); });
}

TEST_CASE("a device scales pooled rows of more tokens than a block adds up") {
  batch const in = random_batch(52, {.Hq = 2, .H = 1, .D = 8, .N = {2100, 60}, .future = 0}, 0.5);
  attention const rows = last_queries(in, 18);
  with_cache(layouts::layout::hnd, cache_shape_of(in), in, [&](auto& cache) {
    scores_alike(
        cache, presets::defensivekv({.window = 18}),
        [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); }, 300);
  });
}

TEST_CASE("a device takes spreads of window rows, largest values and redundancy as the host does") {
  batch const in = random_batch(53, {.Hq = 4, .H = 2, .D = 24, .N = {90, 33}, .future = 0});
  attention const rows = all_rows(in);
  for (layouts::layout const l : {layouts::layout::hnd, layouts::layout::x_packed})
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      CAPTURE(cache.name());
      all_alike(cache, presets::cake({.window = 8}), rows);
      auto const by_queries = [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); };
      scores_alike(cache, presets::lava({.window = 8}), by_queries);
      scores_alike(cache, presets::rkv({.window = 8}), by_queries);
    });
}

}  // namespace window_folds_test
