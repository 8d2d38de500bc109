// SPDX-License-Identifier: Apache-2.0
// Folds of window weights on a device: the host's scores, by queries with and without LSE and by softmax rows, in every
// layout, over more rows and tokens than a block takes.
#include "simt/same_words.hpp"

using namespace simt_test;
using kvevict::score::change;

namespace {

/// Scores within 2e-5, relative to the largest, by both contexts.
template <class Cache, class Policy, class Evidence>
void scores_alike(Cache& cache, Policy const& policy, Evidence const& evidence, std::int32_t tokens = 20) {
  on_host host;
  std::vector<float> want, got;
  kvevict::budget const ask{.tokens_per_head = tokens};
  scores(host.ctx, policy, evidence(host, cache.view), ask, want);
  device_cache<typename std::decay_t<decltype(cache.view)>::table_entry> there(cache);
  on_gpu gpu;
  scores(gpu.ctx, policy, evidence(gpu, there.view), ask, got);
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])) /
                                (1e-6 + std::abs(static_cast<double>(want[i]))));
  CHECK(worst < 1e-4);
}

/// The same by each kind of evidence.
template <class Cache, class Policy>
void all_alike(Cache& cache, Policy const& policy, attention const& rows, std::int32_t tokens = 20) {
  scores_alike(
      cache, policy, [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); }, tokens);
  scores_alike(
      cache, policy,
      [&](auto& on, auto const& view) {
        kvevict::query_rows given = rows.queries();
        given.lse = rows.lse.data(), given.lse_token_stride = rows.lse_stride(), given.lse_head_stride = 1;
        given = on.rows(given);
        return prompt(view, given).with_lse(given.lse, given.lse_token_stride, 1);
      },
      tokens);
  if (policy.score.of != change::value_and_key)
    scores_alike(
        cache, policy, [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.rows())); }, tokens);
}

}  // namespace

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
          all_alike(cache, presets::dropkv({.window = 8, .of = of}), rows);
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
