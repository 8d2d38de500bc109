// SPDX-License-Identifier: Apache-2.0
// observe takes batches as schedulers have them: any number of rows of every sequence, none included.
#include <kvevict/evidence/plan_counts.hpp>
#include <kvevict/layers/pyramid.hpp>

#include <limits>

#include "support/mixed_batch.hpp"

namespace policy_observe_batch_test {

using namespace support;

namespace {

auto const observe = [](auto const& policy, auto& cache, attention const& rows, form as) {
  kvevict::host ctx;
  kvevict::budget const ask{.tokens_per_head = 16};
  if (as == form::weights)
    kvevict::observe(ctx, policy, kvevict::step(cache.view, rows.rows()), ask);
  else if (as == form::queries)
    kvevict::observe(ctx, policy, kvevict::step(cache.view, rows.queries()), ask);
  else
    kvevict::observe(ctx, policy,
                     kvevict::step(cache.view, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1), ask);
};

}  // namespace

TEST_CASE("observe: each sequence of a mixed batch gets the state that it would get alone") {
  std::uint64_t seed = 310;
  for (mix const& m : mixes())
    for (auto const l : {layouts::layout::head_pages, layouts::layout::nhd}) {
      mixed_batch const b(m, ++seed);
      together_as_alone(b, l, kvevict::presets::h2o(), observe);
      together_as_alone(b, l, kvevict::presets::ahakv({.recent = 8}), observe);
      together_as_alone(b, l, kvevict::presets::ahakv({.recent = 2}), observe);
    }
}

TEST_CASE("observe: what earlier calls have left in scratch is in no row that a sequence does not provide") {
  mixed_batch const b({{40, 30, 25}, {1, 6, 2}}, 340);
  auto const policy = kvevict::presets::ahakv({.recent = 8});
  for (bool const weights : {false, true})
    states_after(b, layouts::layout::head_pages, 8, 0, 3, [&](auto& cache, attention const& rows) {
      kvevict::host ctx;
      {
        kvevict::frame left(ctx.scratch());
        std::int64_t const more = 1 << 18;  // than the call needs
        std::fill_n(left.allocate<float>(more), more, std::numeric_limits<float>::quiet_NaN());
      }
      if (weights)
        CHECK_NOTHROW(kvevict::observe(ctx, policy, kvevict::step(cache.view, rows.rows()), {.tokens_per_head = 16}));
      else
        CHECK_NOTHROW(
            kvevict::observe(ctx, policy, kvevict::step(cache.view, rows.queries()), {.tokens_per_head = 16}));
      CHECK(ctx.scratch().high_water() <= std::size_t{4} << 18);
    });
}

TEST_CASE("observe() and a plan of the layer alone give a row one budget, behind a read-only prefix, too") {
  batch const in = random_batch(84, {.Hq = 2, .H = 1, .D = 4, .N = {80}, .future = 0});
  attention const rows = all_rows(in);
  auto const policy = kvevict::presets::h2o({.recent = 4}).with(kvevict::layers::pyramid{});
  for (std::int32_t const prefix : {0, 16})
    for (std::int32_t layer = 0; layer < 2; ++layer)
      with_cache(layouts::layout::head_pages, cache_shape_of(in), in, [&](auto& cache) {
        auto const view = cache.view.with_read_only(&prefix);
        kvevict::budget const ask{.tokens_per_head = 32, .layer = layer, .layer_count = 2};
        kvevict::host ctx;
        kvevict::frame scratch(ctx.scratch());
        auto const observed = kvevict::kernels::observe_rows(ctx, scratch, kvevict::prompt(view, rows.queries()),
                                                             policy.protect, policy.layers, ask);
        CAPTURE(prefix, layer);
        CHECK(observed.rows[0].budget == plan_counts(ctx, policy, view, ask)(0, 0));
      });
}

TEST_CASE("observe: a new token begins anew in whatever slot it comes to lie") {
  constexpr std::int32_t N = 130;
  batch const in = random_batch(7, {.Hq = 2, .H = 1, .D = 8, .N = {N}});
  auto shape = cache_shape_of(in);
  shape.state_floats = 1;
  layouts::cache<std::int32_t> cache(layouts::layout::head_pages, shape);
  fill(cache, in);
  auto const view = cache.view.with_order(kvevict::row_order::scattered);
  std::vector<float> const weights(2 * N, 1.0f / N);
  std::int32_t const begin[] = {0, 1}, newest = N - 1;
  kvevict::attention_rows rows;
  rows.weights = weights.data(), rows.heads = 2, rows.slots = N, rows.head_stride = N, rows.token_stride = 2 * N;
  rows.row_begin = begin, rows.positions = &newest;
  kvevict::host ctx;
  for (std::int32_t slot = 0; slot < N; ++slot) {
    cache.fill(kvevict::role::state, [](int, int, int, int) { return 5; });
    cache.fill(kvevict::role::position, [&](int, int, int t, int) {
      return t == slot ? N - 1 : t == N - 1 ? slot : t;
    });
    kvevict::observe(ctx, kvevict::presets::h2o(), kvevict::step(view, rows), {.tokens_per_head = N});
    std::vector<float> const state = cache.read(kvevict::role::state, 0, 0);
    for (std::int32_t t = 0; t < N; ++t)
      CHECK(state[static_cast<std::size_t>(t)] == Approx(1.0f / N + (t == slot ? 0.0f : 5.0f)));
  }
}

}  // namespace policy_observe_batch_test
