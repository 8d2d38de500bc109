// SPDX-License-Identifier: Apache-2.0
// Attention of later queries by their moments, against sums in double over every later position.
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/expected_attention.hpp>
#include <kvevict/threads.hpp>

#include "support/catch.hpp"
#include "support/later_case.hpp"

namespace policy_expected_attention_test {

using namespace support;
using kvevict::score::query_spread, kvevict::score::value_factor;

namespace {

constexpr kvevict::budget ask{.tokens_per_head = 12};
known_rope const nope{"none", {}, {}, 0};

template <class Policy, class Evidence> std::vector<float> scores(Policy const& p, Evidence const& e) {
  kvevict::host ctx;
  std::vector<float> values;
  kvevict::scores(ctx, p, e, ask, values);
  return values;
}
/// Of tokens [begin, begin + M) of the expected rows.
void check(std::vector<float> const& got, rows const& expected, std::size_t begin, double epsilon = 2e-4) {
  std::size_t const N = got.size() / expected.size();
  double worst = 0;
  for (std::size_t h = 0; h < expected.size(); ++h)
    for (std::size_t j = 0; j < expected[h].size(); ++j) {
      double const x = static_cast<double>(got[h * N + begin + j]);
      worst = std::max(worst, std::abs(x - expected[h][j]) / (std::abs(expected[h][j]) + 1e-6));
    }
  CHECK(worst < epsilon);
}

}  // namespace

TEST_CASE("expected attention: moments of the prompt's queries, every small rope, with covariance and without") {
  auto ropes = small_ropes();
  ropes.push_back(nope);
  for (known_rope const& rope : ropes)
    for (int const positions : {1, 32, 512}) {
      CAPTURE(rope.name, rope.width, rope.interleaved(), positions);
      later_case const c(701, rope, {.Hq = 4, .H = 2, .D = 24, .N = {60}, .future = 0});
      auto const later = c.later(c.moments(60, 4), positions);
      auto const e = kvevict::prompt(c.cache.view, c.all.queries()).with_rope(rope.ours);
      for (bool const both : {true, false}) {
        auto const policy =
            kvevict::presets::expected_attention({.positions = positions,
                                                  .of = both ? query_spread::mean_and_covariance : query_spread::mean,
                                                  .sinks = 4,
                                                  .recent = 3,
                                                  .epsilon = 0.01f});
        check(scores(policy, e), reference::expected_attention(c.in.layers[0], later, 4, 57, both, 0.01, true), 4);
      }
    }
}

TEST_CASE("expected attention: given moments are as good as the queries that they are of") {
  later_case const c(702, small_ropes()[0], {.Hq = 6, .H = 2, .D = 24, .N = {60}, .future = 0});
  kept_moments const kept(c.moments(60, 4));
  auto const policy = kvevict::presets::expected_attention({.sinks = 4});
  auto const given = scores(policy, kvevict::contents(c.cache.view).with_query_moments(kept()).with_rope(c.rope.ours));
  check(given, reference::expected_attention(c.in.layers[0], c.later(c.moments(60, 4), 512), 4, 60, true, 0, true), 4);
  // they count where queries are there, too
  auto const e = kvevict::prompt(c.cache.view, c.all.queries()).with_rope(c.rope.ours);
  CHECK(scores(policy, e.with_query_moments(kept())) == given);
  auto scaled = kept();
  scaled.scale = 0.1f;
  reference::layer in = c.in.layers[0];
  in.scale = 0.1;
  check(scores(policy, kvevict::contents(c.cache.view).with_query_moments(scaled).with_rope(c.rope.ours)),
        reference::expected_attention(in, c.later(c.moments(60, 4), 512), 4, 60, true, 0, true), 4);
  check(scores(policy, e.with_scale(0.1f)),
        reference::expected_attention(in, c.later(c.moments(60, 4), 512), 4, 60, true, 0, true), 4);
}

TEST_CASE("expected attention: of a window's queries those, without the value's length attention itself") {
  later_case const c(703, small_ropes()[0], {.Hq = 2, .H = 2, .D = 24, .N = {60}, .future = 0});
  attention last = last_queries(c.in, 20);
  last.positions.assign(c.all.positions.end() - 20, c.all.positions.end());
  last.q.assign(c.all.q.end() - 20 * 2 * 24, c.all.q.end());
  auto const policy = kvevict::presets::expected_attention({.positions = 64, .sinks = 2, .values = value_factor::none});
  auto const got = scores(policy, kvevict::prompt(c.cache.view, last.queries()).with_rope(c.rope.ours));
  check(got, reference::expected_attention(c.in.layers[0], c.later(c.moments(20, 2), 64), 2, 60, true, 0, false), 2);
  for (std::size_t h = 0; h < 2; ++h) {
    double sum = 0;
    for (std::size_t j = 2; j < 60; ++j) sum += static_cast<double>(got[h * 60 + j]);
    CHECK(sum == Approx(1).epsilon(1e-5));
  }
  // positions that nobody gives are those of the newest tokens
  auto rows = last.queries();
  rows.positions = nullptr;
  auto const same = scores(policy, kvevict::prompt(c.cache.view, rows).with_rope(c.rope.ours));
  CHECK(same == got);
}

TEST_CASE("expected attention is what sampled queries pay on average, where they are normal") {
  later_case c(704, nope, {.Hq = 1, .H = 1, .D = 4, .N = {40}, .future = 0}, 0.7);
  auto const of = c.moments(40, 0);
  // μ + L·z with L·Lᵀ = Σ
  rows L(4, reference::row(4, 0.0));
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t k = 0; k <= i; ++k) {
      double x = of[0].covariance[i][k];
      for (std::size_t m = 0; m < k; ++m) x -= L[i][m] * L[k][m];
      L[i][k] = i == k ? std::sqrt(x) : x / L[k][k];
    }
  reference::generator random(9);
  reference::row expected(40, 0.0);
  for (int n = 0; n < 40000; ++n) {
    auto const z = random.normals(4);
    reference::row q = reference::multiply(L, {z[0], z[1], z[2], z[3]});
    for (std::size_t d = 0; d < 4; ++d) q[d] += of[0].mean[d];
    for (std::size_t j = 0; j < 40; ++j)
      expected[j] += std::exp(0.5 * reference::dot(q, reference::token_row(c.in.layers[0].keys, 0, j)));
  }
  double sum = 0;
  for (double const x : expected) sum += x;
  auto const got = scores(kvevict::presets::expected_attention({.sinks = 0, .values = value_factor::none}),
                          kvevict::prompt(c.cache.view, c.all.queries()));
  for (std::size_t j = 0; j < 40; ++j) CHECK(static_cast<double>(got[j]) == Approx(expected[j] / sum).epsilon(0.08));
}

TEST_CASE("expected attention: moments of each layer and sequence") {
  batch const in = random_batch(705, {.Hq = 2, .H = 1, .D = 8, .N = {40, 40, 30, 30}, .future = 0});  // two layers
  std::vector<std::vector<reference::moments>> each;
  std::vector<float> mean, covariance;
  for (std::size_t s = 0; s < 4; ++s) {
    std::vector<reference::moments> heads;
    for (std::size_t hq = 0; hq < 2; ++hq) {
      rows q;
      for (std::size_t t = 0; t < in.N[s]; ++t) q.push_back(reference::token_row(in.layers[s].queries, hq, t));
      heads.push_back(reference::moments_of(q));
    }
    kept_moments const kept(heads);
    mean.insert(mean.end(), kept.mean.begin(), kept.mean.end());
    covariance.insert(covariance.end(), kept.covariance.begin(), kept.covariance.end());
    each.push_back(heads);
  }
  with_cache(in, [&](auto& cache) {
    auto view = cache.view;
    view.components[0] = view.components[0].turned(kvevict::rotation::none);
    view.pages.layers = 2, view.pages.layer_stride = 2 * view.pages.seq_stride;
    kvevict::query_moments m{mean.data(), covariance.data(), 2, 8, 0, 4, 2};
    auto const policy = kvevict::presets::expected_attention({.sinks = 1});
    kvevict::host ctx;
    std::vector<float> values;
    kvevict::budget const stack{.tokens_per_head = 12, .layer_count = 2};
    kvevict::scores(ctx, policy, kvevict::contents(view).with_query_moments(m), stack, values);
    std::size_t begin = 0;
    for (std::size_t s = 0; s < 4; begin += in.N[s++]) {
      auto const expected = reference::expected_attention(in.prompt(s), each[s], 1, in.N[s], true, 0, true);
      for (std::size_t j = 0; j + 1 < in.N[s]; ++j)
        CHECK(static_cast<double>(values[begin + 1 + j]) == Approx(expected[0][j]).epsilon(2e-4).margin(1e-7));
    }
    m.layer_stride = 0;
    CHECK_THROWS_WITH(kvevict::scores(ctx, policy, kvevict::contents(view).with_query_moments(m), stack, values),
                      Catch::Contains("expected_attention: query moments of one layer for a stack of 2"));
  });
}

TEST_CASE("expected attention: the same bits in every layout, for any number of threads, and of scattered rows") {
  batch const in = random_batch(706, {.Hq = 4, .H = 2, .D = 24, .N = {150, 9, 61}, .future = 0});
  attention const all = all_rows(in);
  kvevict::rope const rope{10000};
  auto const policy = kvevict::presets::expected_attention({.sinks = 2});
  kvevict::threads pool(3);
  std::vector<float> want;
  for (layouts::layout const l : layouts::all)
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      auto view = cache.view;
      view.components[0] = view.components[0].turned(kvevict::rotation::rope);
      for (bool const scattered : {false, true})
        for (bool const threaded : {false, true}) {
          kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
          view.order = scattered ? kvevict::row_order::scattered : kvevict::row_order::ascending;
          std::vector<float> got;
          kvevict::scores(ctx, policy, kvevict::prompt(view, all.queries()).with_rope(rope), ask, got);
          if (want.empty()) want = got;
          CAPTURE(cache.name(), threaded, scattered);
          CHECK(got == want);
        }
    });
}

TEST_CASE("expected attention refuses what it cannot expect anything of") {
  later_case const c(707, small_ropes()[0], {.Hq = 4, .H = 2, .D = 24, .N = {60}, .future = 0});
  kept_moments const kept(c.moments(60, 4));
  auto const says = [](auto const& policy, auto const& e, char const* what) {
    CHECK_THROWS_WITH(scores(policy, e), Catch::Contains(what));
  };
  auto const policy = kvevict::presets::expected_attention();
  auto const e = kvevict::prompt(c.cache.view, c.all.queries()).with_rope(c.rope.ours);
  says(policy, kvevict::prompt(c.cache.view, c.all.queries()), "expected_attention: component k is turned by a rope");
  auto view = c.cache.view;
  view.components[0] = view.components[0].turned(kvevict::rotation::unsaid);
  says(policy, kvevict::prompt(view, c.all.queries()), "expected_attention: component k does not say what turned it");
  says(kvevict::presets::expected_attention({.positions = 0}), e, "expected_attention: 0 later positions");
  says(kvevict::presets::expected_attention({.epsilon = -1}), e, "expected_attention: epsilon is -1");
  auto m = kept();
  m.covariance = nullptr;
  says(policy, e.with_query_moments(m), "expected_attention: query moments without covariances");
  CHECK_NOTHROW(scores(kvevict::presets::expected_attention({.of = query_spread::mean}), e.with_query_moments(m)));
  m.mean = nullptr;
  says(policy, e.with_query_moments(m), "expected_attention: query moments without means");
  m = kept(), m.heads = 3;
  says(policy, e.with_query_moments(m), "expected_attention: moments of 3 query heads of 24 elements for 2 KV heads");
  m = kept(), m.head_dim = 20;
  says(policy, e.with_query_moments(m), "of 20 elements for 2 KV heads of 24");
}

}  // namespace policy_expected_attention_test
