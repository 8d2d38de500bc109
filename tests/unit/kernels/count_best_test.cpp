// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/count_best.hpp>
#include <kvevict/kernels/select_best.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "support/catch.hpp"
#include "support/selection.hpp"

namespace kernels_count_best_test {

using namespace kvevict;
using reference::generator;

namespace {

struct question {
  reference::selection_input in;
  std::int32_t sequence;
  kernels::select::best_of what;
  std::vector<float> weights;
};

question random_question(std::uint64_t seed) {
  generator random(seed);
  reference::selection_shape shape;
  shape.heads = 1 + static_cast<std::int32_t>(random.below(6));
  shape.scattered = seed % 2 != 0;
  shape.levels = seed % 3 * 3;
  shape.most_tokens = seed % 50 == 0 ? 20000 : 1 + seed / 2;
  question q{reference::random_selection(random, shape), static_cast<std::int32_t>(random.below(2)), {}, {}};
  std::int64_t low = 0, high = 0;
  q.what.forced = seed % 5 == 0 ? static_cast<std::int32_t>(random.below(20)) : 0;
  for (std::int32_t h = 0; h < shape.heads; ++h) {
    row const& r = q.in.rows[static_cast<std::size_t>(q.sequence * shape.heads + h)];
    if (!r.active) continue;
    low += std::min(r.candidates, q.what.forced);
    high += r.candidates;
  }
  q.what.count = low + static_cast<std::int64_t>(random.below(static_cast<std::size_t>(high - low) + 1));
  if (seed % 7 == 0) q.weights = random.uniforms<float>(static_cast<std::size_t>(shape.heads), 0, 2);
  if (seed % 14 == 0) q.weights[0] = 0;
  return q;
}

}  // namespace

TEST_CASE("count_best: equals a sort over all heads") {
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    host ctx;  // fresh, so that its scratch has no room to spare
    auto q = random_question(seed);
    if (!q.weights.empty()) q.what.weights = q.weights.data();
    auto const s = q.in.view();
    std::vector<std::int32_t> counts(static_cast<std::size_t>(s.heads), -1);
    CAPTURE(seed, q.what.count, q.what.forced);
    kernels::select::count_best(ctx, s, q.sequence, q.what, counts.data());
    REQUIRE(counts == reference::best_of_heads(s, q.sequence, q.what.count, q.what.forced, q.what.weights));
    CHECK(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == q.what.count);
  }
}

TEST_CASE("count_best: ties go to the later position, then to the lower head") {
  std::vector<float> scores(12, 2.0f);
  row rows[] = {{0, 0, 4, 0, 4, 4, 4, true}, {0, 1, 4, 0, 4, 4, 4, true}, {0, 2, 4, 1, 4, 3, 4, true}};
  std::int64_t const begin[] = {0, 4, 8, 12};
  score_rows const s{rows, 1, 3, begin, scores.data()};
  host ctx;
  std::vector<std::int32_t> counts(3);
  // position 3 of three heads, then position 2 of heads 0 and 1
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{5}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{2, 2, 1});
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{10}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{4, 3, 3});
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{0}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{0, 0, 0});
}

TEST_CASE("count_best: forced tokens come first, weights decide the rest") {
  std::vector<float> scores{9, 8, 7, 6, 1, 2, 3, 4};
  row rows[] = {{0, 0, 4, 0, 4, 4, 4, true}, {0, 1, 4, 0, 4, 4, 4, true}};
  std::int64_t const begin[] = {0, 4, 8};
  score_rows const s{rows, 1, 2, begin, scores.data()};
  host ctx;
  std::vector<std::int32_t> counts(2);
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{4}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{4, 0});
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{4, 1}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{3, 1});
  float const weights[] = {1, 100};
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{4, 0, weights}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{0, 4});
  rows[0].active = false;
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{2}, counts.data());
  CHECK(counts == std::vector<std::int32_t>{0, 2});
}

TEST_CASE("count_best: impossible questions are refused, scratch is within its bound") {
  std::vector<float> scores(8, 1.0f);
  row rows[] = {{0, 0, 4, 0, 4, 4, 4, true}, {0, 1, 4, 0, 4, 4, 4, true}};
  std::int64_t const begin[] = {0, 4, 8};
  score_rows const s{rows, 1, 2, begin, scores.data()};
  host ctx;
  std::int32_t counts[2];
  CHECK_THROWS_AS(kernels::select::count_best(ctx, s, 0, kernels::select::best_of{9}, counts), contract_violation);
  CHECK_THROWS_AS(kernels::select::count_best(ctx, s, 0, kernels::select::best_of{-1}, counts), contract_violation);
  CHECK_THROWS_AS(kernels::select::count_best(ctx, s, 0, kernels::select::best_of{3, 2}, counts), contract_violation);
  CHECK_THROWS_AS(kernels::select::count_best(ctx, s, 1, kernels::select::best_of{1}, counts), contract_violation);
  float const weights[] = {1, 3e38f};
  scores[5] = 2;
  CHECK_THROWS_AS(kernels::select::count_best(ctx, s, 0, kernels::select::best_of{1, 0, weights}, counts),
                  contract_violation);
  float const turned_round[] = {1, -1};
  CHECK_THROWS_WITH(kernels::select::count_best(ctx, s, 0, kernels::select::best_of{1, 0, turned_round}, counts),
                    Catch::Contains("head 1") && Catch::Contains("the weight is below 0"));
  rows[1].candidates = 3;
  CHECK_THROWS_AS(kernels::select::count_best(ctx, s, 0, kernels::select::best_of{1}, counts), contract_violation);
  rows[1].candidates = 4;
  kernels::select::count_best(ctx, s, 0, kernels::select::best_of{3, 1}, counts);
  CHECK(ctx.scratch().high_water() <= static_cast<std::size_t>(kernels::count_best_bytes(2, 8)));
}

TEST_CASE("count_best: of many scores a sample says the same, and what it leaves for the selection changes nothing") {
  constexpr std::int32_t H = 3, N = 5000;
  generator random(11);
  std::vector<float> normal(std::size_t{H} * N);
  for (std::size_t i = 0; i < normal.size(); ++i)
    normal[i] = static_cast<float>(random.normal()) * (1.0f + static_cast<float>(i / N));
  auto levels = normal, equal = normal, misled = normal;
  for (float& x : levels) x = std::floor(x);
  for (float& x : equal) x = -0.0f;
  for (std::int64_t h = 0; h < H; ++h)
    for (std::int64_t i = 0; i < kernels::select::sample_size(H * N); ++i)
      misled[static_cast<std::size_t>(h * N + kernels::select::sampled(i, N - 7))] = -9;
  float const ones[] = {1, 1, 1};  // scores with weights are not sampled
  std::int64_t const begin[] = {0, N, 2 * N, 3 * N};
  for (auto* scores : {&normal, &levels, &equal, &misled})
    for (auto const& [k, forced] : {std::pair<std::int64_t, std::int32_t>{1, 0},
                                    {40, 0},
                                    {40, 7},
                                    {3000, 0},
                                    {3000, 600},
                                    {3000, 999},
                                    {3000, 1000},
                                    {7500, 0},
                                    {7500, 2000},
                                    {14900, 0},
                                    {14900, 4960},
                                    {3 * (N - 7), 0},
                                    {3 * (N - 7), N}}) {
      row rows[H];
      for (std::int32_t h = 0; h < H; ++h) rows[h] = {0, h, N, 0, N - 7, N - 7, 7, true};
      score_rows const s{rows, 1, H, begin, scores->data()};
      host ctx;
      std::int32_t sampled[H], all[H];
      kernels::select::count_best(ctx, s, 0, {k, forced}, sampled);
      kernels::select::count_best(ctx, s, 0, {k, forced, ones}, all);
      CAPTURE(k, forced);
      REQUIRE(std::equal(all, all + H, sampled));
      keep_set told, untold;
      for (std::int32_t h = 0; h < H; ++h) rows[h].budget = 7 + std::min(all[h] + 9 * h, N - 7);
      kernels::select_best(ctx, s, told);
      for (row& r : rows) r.known.low += 1000, r.known.from_high -= 5, r.known.above_low += 99;  // out of date
      kernels::select_best(ctx, s, untold);
      CHECK(told.tokens == untold.tokens);
      for (row& r : rows) r.known = {};
      kernels::select_best(ctx, s, untold);
      CHECK(told.tokens == untold.tokens);
    }
  normal[12] = std::numeric_limits<float>::infinity();
  row rows[H];
  for (std::int32_t h = 0; h < H; ++h) rows[h] = {0, h, N, 0, N, N, 0, true};
  host ctx;
  std::int32_t counts[H];
  CHECK_THROWS_AS(kernels::select::count_best(ctx, {rows, 1, H, begin, normal.data()}, 0, {100}, counts),
                  contract_violation);
}

TEST_CASE("count_best: a sample is taken of many short rows, too") {
  for (std::int32_t const tokens : {1, 3, 7}) {
    std::int32_t const H = 5000 / tokens + 1;
    generator random(12);
    auto const scores = random.uniforms<float>(static_cast<std::size_t>(H * tokens), 0, 1);
    std::vector<row> rows;
    std::vector<std::int64_t> begin{0};
    for (std::int32_t h = 0; h < H; ++h)
      rows.push_back({0, h, tokens, 0, tokens, tokens, 0, true}), begin.push_back(begin.back() + tokens);
    score_rows const s{rows.data(), 1, H, begin.data(), const_cast<float*>(scores.data())};
    for (std::int64_t const k : {1, 1000, 4900})
      for (std::int32_t const forced : {0, 1, 2}) {
        if (k < H * std::min(forced, tokens)) continue;
        CAPTURE(tokens, k, forced);
        host ctx;
        std::vector<std::int32_t> counts(static_cast<std::size_t>(H));
        kernels::select::count_best(ctx, s, 0, {k, forced}, counts.data());
        CHECK(counts == reference::best_of_heads(s, 0, k, forced, nullptr));
      }
  }
}

TEST_CASE("count_best: forced tokens of rows that fall below their floor one after the other") {
  constexpr std::int32_t H = 40, N = 200;
  generator random(13);
  std::vector<float> scores(std::size_t{H} * N);
  std::vector<row> rows;
  std::vector<std::int64_t> begin{0};
  for (std::int32_t h = 0; h < H; ++h) {
    for (std::int32_t j = 0; j < N; ++j)
      scores[static_cast<std::size_t>(h * N + j)] = static_cast<float>(std::pow(1.03, h) * random.uniform(0, 1));
    rows.push_back({0, h, N, 0, N, N, 0, true}), begin.push_back(begin.back() + N);
  }
  score_rows const s{rows.data(), 1, H, begin.data(), scores.data()};
  for (std::int64_t const k : {400, 1600, 4000})
    for (std::int32_t const percent : {50, 90, 99, 100}) {
      auto const forced = static_cast<std::int32_t>(k / H * percent / 100);
      CAPTURE(k, forced);
      host ctx;
      std::vector<std::int32_t> counts(H);
      kernels::select::count_best(ctx, s, 0, {k, forced}, counts.data());
      CHECK(counts == reference::best_of_heads(s, 0, k, forced, nullptr));
    }
}

}  // namespace kernels_count_best_test
