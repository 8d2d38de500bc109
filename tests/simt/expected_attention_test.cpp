// SPDX-License-Identifier: Apache-2.0
// Attention of later queries on a device, of queries and of given moments.
#include "simt/scores_alike.hpp"
#include "support/later_case.hpp"

namespace expected_attention_test {

using namespace simt_test;

TEST_CASE("a device expects the attention that the host does, of every small rope") {
  for (known_rope const& rope : small_ropes()) {
    later_case c(711, rope, {.Hq = 4, .H = 2, .D = 24, .N = {70}, .future = 0});
    CAPTURE(rope.name, rope.width, rope.interleaved());
    auto const policy = presets::expected_attention({.sinks = 4, .recent = 3});
    scores_alike(c.cache, policy, [&](auto& on, auto const& view) {
      return prompt(view, on.rows(c.all.queries())).with_rope(rope.ours);
    });
    kept_moments const kept(c.moments(70, 4));
    scores_alike(c.cache, policy, [&](auto& on, auto const& view) {
      return contents(view)
          .with_query_moments(kept.at(on.put(kept.mean), on.put(kept.covariance)))
          .with_rope(rope.ours);
    });
  }
}

TEST_CASE("a device expects attention of several sequences, of means alone, in other layouts") {
  batch const in = random_batch(712, {.Hq = 4, .H = 2, .D = 24, .N = {90, 33}, .future = 0}, 0.8);
  attention const rows = all_rows(in);
  for (layouts::layout const l : {layouts::layout::x_packed, layouts::layout::pointers})
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      CAPTURE(cache.name());
      cache.view.components[0] = cache.view.components[0].turned(kvevict::rotation::rope);
      for (auto const spread : {kvevict::score::query_spread::mean, kvevict::score::query_spread::mean_and_covariance})
        scores_alike(cache, presets::expected_attention({.positions = 40, .of = spread, .sinks = 2}),
                     [&](auto& on, auto const& view) {
                       return prompt(view, on.rows(rows.queries())).with_rope(kvevict::rope{10000});
                     });
    });
}

}  // namespace expected_attention_test
