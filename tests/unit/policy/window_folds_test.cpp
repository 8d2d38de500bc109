// SPDX-License-Identifier: Apache-2.0
// Scores of window rows beyond their mean: the largest, the spread, with values, with redundancy.
#include <cmath>

#include <kvevict/presets/cake.hpp>
#include <kvevict/presets/defensivekv.hpp>
#include <kvevict/presets/lava.hpp>
#include <kvevict/presets/rkv.hpp>
#include <kvevict/threads.hpp>

#include "support/one_prompt.hpp"
#include "support/reference_outputs.hpp"

namespace policy_window_folds_test {

using namespace support;
namespace presets = kvevict::presets;

namespace {

constexpr std::size_t W = 8;

reference::rows window_scores(reference::layer const& in, std::size_t k) {
  return reference::window_scores(in, {W, k, reference::pool::max, reference::reduce::mean, false});
}

}  // namespace

TEST_CASE("largest_attention: any window row of any query head, pooled to its own sum, not below the mean") {
  one_prompt l(321);
  for (std::size_t const k : {1u, 5u, 33u}) {
    CAPTURE(k);
    l.check_all(presets::defensivekv({.window = int32(W), .pool = int32(k)}),
                reference::largest_attention(l.in.layers[0], W, k, W));
  }
  l.budget.tokens_per_head = 45;
  l.check_all(presets::defensivekv({.window = 41}), reference::largest_attention(l.in.layers[0], 41, 5, 41));
  CHECK_THROWS_WITH(l.scores(presets::defensivekv({.window = 41, .pool = 35}), l.queries()),
                    Catch::Contains("rows are pooled by average, up to 33 wide"));
  CHECK_THROWS_WITH(l.scores(presets::defensivekv({.window = 41, .pool = 4}), l.queries()),
                    Catch::Contains("give an odd width"));
}

TEST_CASE("varying_attention: mean and variance over the window rows, of each query head") {
  one_prompt l(322);
  for (float const gamma : {0.0f, 1.0f, 200.0f}) {
    CAPTURE(gamma);
    l.check_all(presets::cake({.window = int32(W), .gamma = gamma}),
                reference::varying_attention(l.in.layers[0], W, 5, static_cast<double>(gamma)));
  }
  // rows that agree have no variance
  l.check_all(presets::cake({.window = 1}), reference::varying_attention(l.in.layers[0], 1, 5, 200));
}

TEST_CASE("value_bound: attention times the head's largest value, so that heads compare") {
  one_prompt l(323);
  l.check_all(presets::lava({.window = int32(W), .pool = 5}),
              reference::bounded_by_values(l.in.layers[0], window_scores(l.in.layers[0], 5)));
}

TEST_CASE("less_redundant equals the mean of all cosines, without their matrix") {
  one_prompt l(324);
  for (float const lambda : {0.0f, 0.07f, 1.0f}) {
    CAPTURE(lambda);
    l.check_all(
        presets::rkv({.window = int32(W), .pool = 5, .lambda = lambda}),
        reference::less_redundant(l.in.layers[0], window_scores(l.in.layers[0], 5), static_cast<double>(lambda)));
  }
  CHECK_THROWS_WITH(l.scores(presets::rkv({.lambda = 1.5f}), l.queries()), Catch::Contains("give a share, 0 to 1"));
  // of two equal keys none is more redundant, and a key of zero resembles nothing
  l.cache.fill(kvevict::role::k, [](int, int, int t, int d) { return t == 5 ? 0 : t % 3 == d ? 1 : 0; });
  auto const values = l.scores(presets::rkv({.window = int32(W), .lambda = 0}), l.queries());
  CHECK(values[3] == values[6]);
  CHECK(std::log(values[6] / values[5]) == Approx(23.0 / 70).epsilon(1e-4));
}

TEST_CASE("folds of window rows have the same bits in every layout and for any number of threads") {
  batch const in = random_batch(325, {.Hq = 4, .H = 2, .D = 24, .N = {150, 9, 61}, .future = 0});
  attention const all = all_rows(in);
  kvevict::threads pool(3);
  auto const same = [&](auto const& policy) {
    std::vector<float> want;
    for (layouts::layout const l : layouts::all)
      with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
        for (bool const threaded : {false, true}) {
          kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
          std::vector<float> got;
          kvevict::scores(ctx, policy, kvevict::prompt(cache.view, all.queries()), {.tokens_per_head = 12}, got);
          if (want.empty()) want = got;
          CAPTURE(cache.name(), threaded);
          CHECK(got == want);
        }
      });
  };
  same(presets::defensivekv({.window = int32(W)})), same(presets::rkv({.window = int32(W)}));
}

}  // namespace policy_window_folds_test
