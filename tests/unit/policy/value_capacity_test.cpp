// SPDX-License-Identifier: Apache-2.0
// Leverage of values that later queries look for, against double precision, and its laws.
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/capkv.hpp>
#include <kvevict/threads.hpp>

#include "support/catch.hpp"
#include "support/later_case.hpp"

namespace policy_value_capacity_test {

using namespace support;
namespace presets = kvevict::presets;

namespace {

constexpr kvevict::budget ask{.tokens_per_head = 12};

template <class Policy, class Evidence> std::vector<float> scores(Policy const& p, Evidence const& e) {
  kvevict::host ctx;
  std::vector<float> values;
  kvevict::scores(ctx, p, e, ask, values);
  return values;
}
void check(std::vector<float> const& got, rows const& expected, std::size_t begin) {
  std::size_t const N = got.size() / expected.size();
  double worst = 0;
  for (std::size_t h = 0; h < expected.size(); ++h)
    for (std::size_t j = 0; j < expected[h].size(); ++j)
      worst = std::max(worst, std::abs(static_cast<double>(got[h * N + begin + j]) - expected[h][j]));
  CHECK(worst < 1e-5);
}
auto evidence_of(later_case const& c) { return kvevict::prompt(c.cache.view, c.all.queries()).with_rope(c.rope.ours); }

}  // namespace

TEST_CASE("value capacity is the leverage of weighed values, of the prompt's queries or of given means") {
  for (known_rope const& rope : small_ropes())
    for (float const sharpness : {0.0f, 5.0f}) {
      CAPTURE(rope.name, rope.width, rope.interleaved(), sharpness);
      later_case const c(721, rope, {.Hq = 4, .H = 2, .D = 24, .N = {60}, .future = 0});
      auto const policy = presets::capkv({.sharpness = sharpness, .positions = 64, .sinks = 4, .recent = 3});
      auto const expected = reference::value_capacity(c.in.layers[0], c.later(c.moments(60, 4), 64), 4, 57,
                                                      static_cast<double>(sharpness));
      check(scores(policy, evidence_of(c)), expected, 4);
      kept_moments const kept(c.moments(60, 4));
      auto given = kept();
      given.covariance = nullptr;  // nobody reads it
      check(scores(policy, kvevict::contents(c.cache.view).with_rope(rope.ours).with_query_moments(given)), expected,
            4);
    }
}

TEST_CASE("value capacity lies between 0 and 1, adds up to no more than the channels, and is the tokens' own") {
  later_case const c(722, small_ropes()[0], {.Hq = 2, .H = 1, .D = 24, .N = {200}, .future = 0});
  auto const got = scores(presets::capkv({.sinks = 2}), evidence_of(c));
  double sum = 0;
  for (std::size_t j = 2; j < 200; ++j) {
    CHECK((got[j] >= 0 && got[j] < 1));
    sum += static_cast<double>(got[j]);
  }
  CHECK((sum > 5 && sum < 24));
}

TEST_CASE("value capacity: values and keys of protected tokens take no part, whatever they are") {
  later_case c(723, small_ropes()[0], {.Hq = 4, .H = 2, .D = 24, .N = {60}, .future = 0});
  auto const policy = presets::capkv({.sinks = 4, .recent = 2});
  auto const before = scores(policy, evidence_of(c));
  for (auto const what : {kvevict::role::v, kvevict::role::k})
    for (int h = 0; h < 2; ++h)
      for (int const t : {0, 3, 58, 59})
        *reinterpret_cast<float*>(c.cache.view.row(*c.cache.view.find(what), 0, h, t)) =
            what == kvevict::role::v ? __builtin_nanf("") : 100.0f;
  auto const after = scores(policy, evidence_of(c));
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t j = 4; j < 58; ++j) CHECK(after[h * 60 + j] == before[h * 60 + j]);
}

TEST_CASE("value capacity: the same bits in every layout and for any number of threads") {
  batch const in = random_batch(724, {.Hq = 4, .H = 2, .D = 24, .N = {150, 9, 61}, .future = 0});
  attention const all = all_rows(in);
  kvevict::threads pool(3);
  std::vector<float> want;
  for (layouts::layout const l : layouts::all)
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      auto view = cache.view;
      view.components[0] = view.components[0].turned(kvevict::rotation::rope);
      for (bool const threaded : {false, true}) {
        kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
        std::vector<float> got;
        kvevict::scores(ctx, presets::capkv({.sinks = 2}),
                        kvevict::prompt(view, all.queries()).with_rope(kvevict::rope{10000}), ask, got);
        if (want.empty()) want = got;
        CAPTURE(cache.name(), threaded);
        CHECK(got == want);
      }
    });
}

TEST_CASE("value capacity refuses a sharpness that is none, and caches without values") {
  later_case const c(725, small_ropes()[0], {.Hq = 4, .H = 2, .D = 24, .N = {60}, .future = 0});
  CHECK_THROWS_WITH(scores(presets::capkv({.sharpness = -1}), evidence_of(c)),
                    Catch::Contains("value_capacity: a sharpness of -1"));
  CHECK_THROWS_WITH(scores(presets::capkv({.positions = 0}), evidence_of(c)),
                    Catch::Contains("value_capacity: 0 later positions"));
  auto view = c.cache.view;
  view.component_count = 0;
  for (auto const& each : c.cache.view)
    if (each.what != kvevict::role::v) view = view.with(each);
  CHECK_THROWS_WITH(scores(presets::capkv(), kvevict::prompt(view, c.all.queries()).with_rope(c.rope.ours)),
                    Catch::Contains("value_capacity: the cache has no component v"));
}

}  // namespace policy_value_capacity_test
