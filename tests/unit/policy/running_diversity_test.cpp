// SPDX-License-Identifier: Apache-2.0
// Key diversity while decoding: scores against a naive sum over all keys that came, in every way to evict.
#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/decoder.hpp"
#include "support/ropes.hpp"
#include "support/running_diversity.hpp"

namespace policy_running_diversity_test {

using namespace support;
namespace presets = kvevict::presets;
using kvevict::score::keys;
using kvevict::score::running_diversity;

namespace {

/// distinct_keys that decodes, without unrotating.
auto decoding(std::vector<float>& sums, std::int32_t refresh) {
  return presets::distinct_keys({.sinks = 2, .keys = keys::cached})
      .with(running_diversity{sums.data(), keys::cached, refresh})
      .with(kvevict::heads::uniform{});
}

}  // namespace

TEST_CASE("while decoding every slot has the score of its token against all keys that came, however tokens go") {
  batch const in = random_batch(61, {.Hq = 4, .H = 2, .D = 8, .N = {40, 40}, .future = 30});
  for (std::int32_t const refresh : {0, 1, 7})
    for (applying const how : {applying::stable, applying::fill_holes, applying::in_place}) {
      layouts::cache_shape shape = cache_shape_of(in);
      shape.state_floats = 1;
      layouts::with_layout(layouts::layout::head_pages, shape, [&](auto& cache) {
        fill(cache, in);
        std::vector<float> sums(2 * 2 * 8, 1e30f);  // another request's
        decoder run(cache, decoding(sums, refresh), in, {.budget = 24, .slack = 0, .how = how});
        std::vector<running_scores> want;
        for (std::size_t b = 0; b < 2; ++b)
          for (std::size_t h = 0; h < 2; ++h)
            want.emplace_back(in.layers[b], h, static_cast<std::size_t>(refresh)).observe(0, 40);
        auto const check = [&] {
          for (std::size_t b = 0; b < 2; ++b)
            for (std::size_t h = 0; h < 2; ++h)
              for (auto const& slot : run.row(b, h)) {
                CAPTURE(refresh, static_cast<int>(how), b, h, slot.position);
                CHECK(slot.state[0] == Approx(want[b * 2 + h](slot.position)).margin(3e-6));
              }
        };
        run.run(
            [&](std::size_t step) {
              if (step != 0)
                for (auto& w : want) w.observe(40 + step - 1, 40 + step);
              check();
            },
            [&](std::size_t) { check(); });
      });
    }
}

TEST_CASE("a prompt that is observed has the scores of key_diversity, of unrotated keys, too") {
  batch const in = random_batch(62, {.Hq = 4, .H = 2, .D = 16, .N = {90, 33}, .future = 0});
  attention const rows = all_rows(in);
  layouts::cache_shape shape = cache_shape_of(in);
  shape.state_floats = 1;
  layouts::with_layout(layouts::layout::head_pages, shape, [&](auto& cache) {
    fill(cache, in);
    known_rope const known{"", kvevict::rope{10000}, {}, 16};
    cache.fill(kvevict::role::k, [&](int b, int h, int t, int d) {
      auto const k = reference::token_row(in.layers[static_cast<std::size_t>(b)].keys, static_cast<std::size_t>(h),
                                          static_cast<std::size_t>(t));
      return known.turned({k.begin(), k.end()}, t)[static_cast<std::size_t>(d)];
    });
    cache.view.components[0] = cache.view.components[0].turned(kvevict::rotation::rope);
    std::vector<float> sums(2 * 2 * 16);
    auto const policy = presets::distinct_keys({.sinks = 0}).with(running_diversity{sums.data()});
    kvevict::host ctx;
    kvevict::budget const ask{.tokens_per_head = 20};
    kvevict::observe(ctx, policy, kvevict::prompt(cache.view, rows.queries()).with_rope(known.ours), ask);
    CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
          workspace_bytes(ctx, policy, {2, 4, 2, 16, 90, cache.view.pages.rows() * 6, 64}));
    std::vector<float> got, plain;
    kvevict::scores(ctx, policy, kvevict::remembered(cache.view), ask, got);
    auto const exact = presets::distinct_keys({.sinks = 0});
    kvevict::scores(ctx, exact, kvevict::contents(cache.view).with_rope(known.ours), ask, plain);
    REQUIRE(got.size() == plain.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(plain[i]).margin(1e-6));
    CHECK(plan(ctx, policy, kvevict::remembered(cache.view), ask).tokens ==
          plan(ctx, exact, kvevict::contents(cache.view).with_rope(known.ours), ask).tokens);
    CHECK(plan(ctx, policy, kvevict::contents(cache.view).with_rope(known.ours), ask).tokens ==
          plan(ctx, exact, kvevict::contents(cache.view).with_rope(known.ours), ask).tokens);
  });
}

TEST_CASE(
    "running_diversity refuses to observe without sums, and writes neither state nor sums where a key is no number") {
  batch const in = random_batch(63, {.Hq = 4, .H = 2, .D = 8, .N = {40}, .future = 0});
  attention const rows = all_rows(in);
  layouts::cache_shape shape = cache_shape_of(in);
  shape.state_floats = 1;
  layouts::with_layout(layouts::layout::hnd, shape, [&](auto& cache) {
    fill(cache, in);
    std::vector<float> sums(16, 5.0f);
    kvevict::host ctx;
    kvevict::budget const ask{.tokens_per_head = 20};
    auto const observe = [&](float* to, std::int32_t refresh) {
      auto const policy = presets::distinct_keys().with(running_diversity{to, keys::cached, refresh});
      kvevict::observe(ctx, policy, kvevict::prompt(cache.view, rows.queries()), ask);
    };
    CHECK_THROWS_WITH(observe(nullptr, 0), Catch::Contains("running_diversity: there are no sums"));
    CHECK_THROWS_WITH(observe(sums.data(), -1), Catch::Contains("a refresh of -1"));
    cache.set(*cache.view.find(kvevict::role::k), 0, 1, 7, 3, std::numeric_limits<float>::infinity());
    auto const before = cache.snapshot();
    CHECK_THROWS_WITH(observe(sums.data(), 0), Catch::Contains("head 1"));
    CHECK((cache.snapshot() == before));
    CHECK(sums == std::vector<float>(16, 5.0f));
  });
}

}  // namespace policy_running_diversity_test
