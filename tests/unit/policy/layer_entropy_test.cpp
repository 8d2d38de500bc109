// SPDX-License-Identifier: Apache-2.0
// Layer budgets by the entropy of scores, and the integers that it is made of.
#include <kvevict/kvevict.hpp>

#include "support/layer_entropy.hpp"

namespace policy_layer_entropy_test {

using namespace support;

TEST_CASE("layer budgets follow the entropy of the layers' scores, exactly, for each head or all of them") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed)
    for (bool const adaptive : {false, true}) {
      kvevict::host ctx;
      std::deque<std::vector<std::byte>> memory;
      layer_entropy::check(
          seed, adaptive, [&](auto const& x) { return together::keep_bytes(memory, x); },
          [&](auto const& policy, auto const& view, kvevict::budget const& b) {
            auto keep = plan(ctx, policy, kvevict::contents(view), b);
            kvevict::cache_shape const shape{view.sequences(), view.heads(), view.heads(), 1, 64, 0, 0};
            CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
                  kvevict::workspace_bytes(ctx, policy, shape));
            auto const counts = plan_counts(ctx, policy, view, b);
            for (std::int32_t s = 0; s < view.sequences(); ++s)
              for (std::int32_t h = 0; h < view.heads(); ++h)
                CHECK((counts(s, h) == kvevict::planned_counts::by_scores || counts(s, h) == keep(s, h).size));
            return keep;
          });
    }
}

TEST_CASE("entropy in integers is that of the scores, as doubles find it") {
  for (std::uint64_t x = 1; x < std::uint64_t{1} << 50; x = x * 5 / 3 + 1)
    CHECK(std::abs(static_cast<double>(kvevict::score_histogram::log2_of(x)) / 1024 -
                   std::log2(static_cast<double>(x))) < 0.003);
  reference::generator random(5);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> scores;
    double const power = random.uniform(0, 9), scale = std::exp2(random.uniform(-90, 90));
    for (std::size_t i = 0, n = 1 + random.below(3000); i < n; ++i)
      scores.push_back(static_cast<float>(scale * std::pow(random.uniform(0, 1), power)));
    double sum = 0, entropy = 0;
    for (float const x : scores) sum += static_cast<double>(x);
    for (float const x : scores)
      if (x > 0) entropy -= static_cast<double>(x) / sum * std::log2(static_cast<double>(x) / sum);
    double const got = static_cast<double>(layer_entropy::weight(scores)) / 1024;
    CAPTURE(trial, power, scores.size(), entropy, got);
    CHECK(std::abs(got - entropy) < 0.02 * entropy + 0.02);
  }
  CHECK(layer_entropy::weight({}) == 0);
  CHECK(layer_entropy::weight({0.5f}) == 0);
  CHECK(layer_entropy::weight({0.5f, 0.5f, 0.5f, 0.5f}) == 2048);
  CHECK(layer_entropy::weight({-1.0f, 0.0f, 3.0f}) == 0);
}

TEST_CASE("a device's histogram of any order of tokens gives the host's entropy: sums are of integers") {
  std::vector<float> scores;
  reference::generator random(6);
  for (int i = 0; i < 500; ++i) scores.push_back(static_cast<float>(random.uniform(0, 1)));
  std::int64_t const first = layer_entropy::weight(scores);
  std::reverse(scores.begin(), scores.end());
  CHECK(layer_entropy::weight(scores) == first);
  for (float& x : scores) x *= 0x1p-40f;
  CHECK(layer_entropy::weight(scores) == first);
}

}  // namespace policy_layer_entropy_test
