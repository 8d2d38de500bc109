// SPDX-License-Identifier: Apache-2.0
// Folds of window weights on a device: the host's scores, by queries with and without LSE and by softmax rows, in every
// layout, over more rows and tokens than a block takes.
#include "simt/scores_alike.hpp"

namespace output_change_test {

using namespace simt_test;
using kvevict::score::change;

TEST_CASE("a device measures what eviction does to outputs as the host does, in every layout") {
  batch const in = random_batch(41, {.Hq = 4, .H = 2, .D = 24, .N = {60, 33}, .future = 0});
  attention const rows = all_rows(in);
  for (layouts::layout const l : layouts::all) {
    layouts::cache_shape shape = cache_shape_of(in);
    shape.type = l == layouts::layout::nhd ? kvevict::dtype::bf16 : kvevict::dtype::f32;
    with_cache(l, shape, in, [&](auto& cache) {
      CAPTURE(cache.name());
      all_alike(cache, presets::dropkv({.window = 8}), rows);
      if (l == layouts::layout::hnd)
        for (change const of : {change::value, change::value_and_key})
          all_alike(cache, presets::dropkv({.window = 8, .of = of}), rows, 20, of == change::value);
    });
  }
}

TEST_CASE("a device takes more window rows, channels and tokens than a block does") {
  batch const in = random_batch(42, {.Hq = 4, .H = 2, .D = 136, .N = {2100, 9}, .future = 0}, 0.5);
  attention const rows = last_queries(in, 35);
  with_cache(layouts::layout::hnd, cache_shape_of(in), in, [&](auto& cache) {
    scores_alike(
        cache, presets::dropkv({.window = 35, .pool = 1}),
        [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); }, 300);
  });
}

TEST_CASE("a device leaves out values that no row sees, whatever they are") {
  batch const in = random_batch(43, {.Hq = 2, .H = 1, .D = 16, .N = {70, 9}, .future = 0});
  attention const rows = all_rows(in);
  with_cache(layouts::layout::hnd, cache_shape_of(in), in, [&](auto& cache) {
    cache.fill(kvevict::role::v, [&](int b, int h, int t, int d) {
      return b == 0 && t < 40 ? __builtin_nanf("")
                              : static_cast<float>(in.layers[std::size_t(b)].values.at(std::size_t(h), std::size_t(t),
                                                                                       std::size_t(d)));
    });
    scores_alike(cache, presets::dropkv({.window = 8, .pool = 1}), [&](auto& on, auto const& view) {
      return prompt(view, on.rows(rows.queries())).with_visibility({.window = 20});
    });
  });
}

}  // namespace output_change_test
