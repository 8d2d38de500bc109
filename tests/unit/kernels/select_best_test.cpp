// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/count_best.hpp>
#include <kvevict/kernels/cut_scores.hpp>
#include <kvevict/kernels/require_finite.hpp>
#include <kvevict/kernels/select_best.hpp>
#include <kvevict/threads.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/selection.hpp"

namespace kernels_select_best_test {

using namespace kvevict;
using reference::generator;

namespace {

std::vector<std::int32_t> copy(slice<std::int32_t const> s) { return {s.begin(), s.end()}; }

std::vector<std::int32_t> select_one(std::vector<float> scores, std::int32_t budget) {
  auto const n = static_cast<std::int32_t>(scores.size());
  row r{0, 0, n, 0, n, n, budget, true};
  std::int64_t const begin[] = {0, n};
  host ctx;
  keep_set out;
  kernels::select_best(ctx, score_rows{&r, 1, 1, begin, scores.data()}, out);
  return copy(out.row(0));
}

std::string message_of(score_rows const& s) {
  host ctx;
  return support::refusal([&] { kernels::require_finite(ctx, s); });
}

}  // namespace

TEST_CASE("select_best: the total order") {
  CHECK(select_one({1, 3, 2, 3, 0}, 1) == std::vector<std::int32_t>{3});        // a tie goes to the later token
  CHECK(select_one({1, 3, 2, 3, 0}, 3) == std::vector<std::int32_t>{1, 2, 3});  // and comes out ascending
  CHECK(select_one({0.0f, -0.0f, 0.0f, -0.0f}, 2) == std::vector<std::int32_t>{2, 3});
  CHECK(select_one({-0.0f, 0.0f, -1.0f}, 1) == std::vector<std::int32_t>{1});
  CHECK(select_one({-1, -2, -3}, 2) == std::vector<std::int32_t>{0, 1});
  CHECK(select_one({std::numeric_limits<float>::denorm_min(), 0, -std::numeric_limits<float>::denorm_min()}, 2) ==
        std::vector<std::int32_t>{0, 1});
  CHECK(select_one({std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()}, 1) ==
        std::vector<std::int32_t>{0});
  CHECK(select_one({5, 5, 5}, 0).empty());
  CHECK(select_one({5, 5, 5}, 3) == std::vector<std::int32_t>{0, 1, 2});
}

TEST_CASE("select_best: scores that differ in their last bit") {
  float const x = 0.75f, above = std::nextafter(x, 1.0f);
  CHECK(select_one({0.1f, above, x, 0.2f}, 1) == std::vector<std::int32_t>{1});
  CHECK(select_one({x, x, above, x, x}, 1) == std::vector<std::int32_t>{2});
  CHECK(select_one({-above, -x, -above, -above}, 1) == std::vector<std::int32_t>{1});
  CHECK(select_one({above, x, above, above}, 2) == std::vector<std::int32_t>{2, 3});  // a tie of an odd key
  CHECK(select_one({-x, -x, -above}, 1) == std::vector<std::int32_t>{1});
}

TEST_CASE("select_best: equals a sort") {
  keep_set out;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    host ctx;  // fresh, so that its scratch has no room to spare
    generator random(seed);
    reference::selection_shape shape;
    shape.scattered = seed % 2 != 0;
    shape.levels = seed % 3 * 4;
    shape.gaps_in_positions = seed % 4 == 1;
    shape.most_tokens = seed % 40 == 0 ? 40000 : 1 + seed;
    auto in = reference::random_selection(random, shape);
    if (seed % 5 == 2)  // one goes, as while decoding
      for (row& r : in.rows) r.budget = r.tokens - (r.active && r.candidates > 0 ? 1 : 0);
    auto const s = in.view();
    CAPTURE(seed);
    kernels::select_best(ctx, s, out);
    REQUIRE(out.rows() == s.count());
    for (std::int64_t r = 0; r < s.count(); ++r) {
      CHECK(out.lengths[static_cast<std::size_t>(r)] == s.rows[r].tokens);
      REQUIRE(copy(out.row(r)) == reference::best_of_row(s, r));
    }
  }
}

TEST_CASE("select_best: long rows, however their scores are distributed") {
  generator random(5);
  constexpr std::int32_t first = 3, behind = 5;
  for (std::int32_t const M : {4095, 4096, 10001, 32768}) {
    auto const most = static_cast<std::size_t>(M);
    std::vector<float> normal(most);
    for (float& x : normal) x = static_cast<float>(random.normal());
    auto const of = [&](auto f) {
      std::vector<float> out(normal);
      for (std::size_t i = 0; i < most; ++i) out[i] = f(i);
      return out;
    };
    auto sorted = normal;
    std::sort(sorted.begin(), sorted.end());
    auto sample_misleads = normal;
    for (std::int64_t i = 0; i < kernels::select::sample_size(M); ++i)
      sample_misleads[static_cast<std::size_t>(kernels::select::sampled(i, M))] = 9;
    auto and_the_other_way = sample_misleads;
    for (float& x : and_the_other_way) x = -x;
    for (auto const& scores : {normal,
                               sorted,
                               {sorted.rbegin(), sorted.rend()},
                               sample_misleads,
                               and_the_other_way,
                               of([](std::size_t) { return -0.0f; }),
                               of([&](std::size_t i) { return i % 5 == 0 ? 2.0f : 1.0f; }),
                               of([&](std::size_t i) { return normal[i] < 0.84f ? 0.25f : 0.5f; }),
                               of([&](std::size_t i) { return normal[i / 7 * 7]; }),
                               of([&](std::size_t i) { return 1 + static_cast<float>(i * 7919 % most) * 0x1p-23f; })})
      for (std::int32_t const quota : {1, 30, M / 5, M / 2, M - 30, M - 1}) {
        std::vector<float> all(first, 1e30f);
        all.insert(all.end(), scores.begin(), scores.end()), all.resize(all.size() + behind, -1e30f);
        std::int64_t const begin[] = {0, static_cast<std::int64_t>(all.size())};
        row r{0, 0, M + first + behind, first, M + first, M, quota + first + behind, true};
        score_rows const s{&r, 1, 1, begin, all.data()};
        host ctx;
        keep_set out;
        kernels::select_best(ctx, s, out);
        CAPTURE(M, quota);
        auto const want = reference::best_of_row(s, 0);
        REQUIRE(copy(out.row(0)) == want);
        float cut = 0, lowest = 1e30f;
        kernels::cut_scores(ctx, s, &cut);
        for (std::int32_t const j : want)
          if (j >= first && j < M + first) lowest = std::min(lowest, all[static_cast<std::size_t>(j)]);
        CHECK(cut == lowest);
      }
  }
}

TEST_CASE("select_best: one goes from a scattered row, and never a protected token, whatever its score") {
  std::vector<float> scores{-9, 5, 1, 3};
  std::vector<std::int32_t> positions{9, 1, 2, 3};
  row r{0, 0, 4, 0, 9, 3, 3, true};
  std::int64_t const begin[] = {0, 4};
  host ctx;
  keep_set out;
  kernels::select_best(ctx, score_rows{&r, 1, 1, begin, scores.data(), positions.data()}, out);
  CHECK(copy(out.row(0)) == std::vector<std::int32_t>{0, 1, 3});
}

TEST_CASE("select_best: one goes from a scattered row, in whichever slot it lies") {
  constexpr std::int32_t N = 150;
  std::vector<std::int32_t> positions;
  for (std::int32_t j = 0; j < N; ++j) positions.push_back(j * 7 % N);
  row const r{0, 0, N, 0, N, N, N - 1, true};
  std::int64_t const begin[] = {0, N};
  host ctx;
  keep_set out;
  for (std::int32_t goes = 0; goes < N; ++goes) {
    CAPTURE(goes);
    std::vector<float> scores(N, 1.0f);
    scores[static_cast<std::size_t>(goes)] = 0;
    row one = r;
    kernels::select_best(ctx, score_rows{&one, 1, 1, begin, scores.data(), positions.data()}, out);
    auto const kept = copy(out.row(0));
    CHECK(kept.size() == N - 1);
    CHECK(std::find(kept.begin(), kept.end(), goes) == kept.end());
  }
}

TEST_CASE("select_best: equal positions, as multimodal rotary embeddings have them, still give the budget") {
  std::vector<float> scores(9, 1.0f);
  std::vector<std::int32_t> positions{4, 4, 4, 4, 2, 2, 2, 9, 9};
  row r{0, 0, 9, 0, 10, 9, 4, true};
  std::int64_t const begin[] = {0, 9};
  host ctx;
  keep_set out;
  kernels::select_best(ctx, score_rows{&r, 1, 1, begin, scores.data(), positions.data()}, out);
  CHECK(copy(out.row(0)) == std::vector<std::int32_t>{2, 3, 7, 8});
  r.budget = 8;
  kernels::select_best(ctx, score_rows{&r, 1, 1, begin, scores.data(), positions.data()}, out);
  CHECK(copy(out.row(0)) == std::vector<std::int32_t>{0, 1, 2, 3, 5, 6, 7, 8});
}

TEST_CASE("select_best: scratch is within its bound, and no scores are no rows") {
  for (std::int32_t const tokens : {1, 100, 5000}) {
    generator random(7);
    reference::selection_shape shape;
    shape.most_tokens = static_cast<std::size_t>(tokens);
    auto in = reference::random_selection(random, shape);
    host ctx;
    keep_set out;
    kernels::select_best(ctx, in.view(), out);
    CHECK(ctx.scratch().high_water() <=
          static_cast<std::size_t>(kernels::select_best_bytes(in.view().count(), tokens, 1)));
  }
  host ctx;
  keep_set out;
  std::int64_t const begin[] = {0};
  kernels::select_best(ctx, score_rows{nullptr, 0, 8, begin, nullptr}, out);
  CHECK(out.rows() == 0);
  CHECK(out.kept() == 0);
}

TEST_CASE("select_best: rows that contradict themselves are refused") {
  std::vector<float> scores(10, 1.0f);
  std::vector<std::int32_t> positions{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::int64_t const begin[] = {0, 10};
  host ctx;
  keep_set out;
  auto const with = [&](row r, bool scattered) {
    kernels::select_best(ctx, score_rows{&r, 1, 1, begin, scores.data(), scattered ? positions.data() : nullptr}, out);
  };
  row const good{0, 0, 10, 2, 8, 6, 7, true};
  for (bool const scattered : {false, true}) {
    row r = good;
    with(r, scattered);
    CHECK(out.kept() == 7);
    r.budget = 3;  // 4 tokens are protected
    CHECK_THROWS_AS(with(r, scattered), contract_violation);
    r.budget = 11;
    CHECK_THROWS_AS(with(r, scattered), contract_violation);
    r = good, r.candidates = 5;
    CHECK_THROWS_AS(with(r, scattered), contract_violation);
    r = good, r.tokens = 9;
    CHECK_THROWS_AS(with(r, scattered), contract_violation);
  }
  row r = good;
  r.last = 11, r.candidates = 9, r.budget = 7;
  CHECK_THROWS_AS(with(r, false), contract_violation);
}

TEST_CASE("require_finite: names the first bad score, and looks at candidates alone") {
  std::vector<float> scores(40, 1.0f);
  row rows[] = {{0, 0, 20, 4, 18, 14, 10, true}, {0, 1, 20, 4, 18, 14, 10, true}};
  std::int64_t const begin[] = {0, 20, 40};
  score_rows const s{rows, 1, 2, begin, scores.data()};
  CHECK(message_of(s).empty());
  scores[3] = scores[18] = std::numeric_limits<float>::quiet_NaN();  // protected
  CHECK(message_of(s).empty());
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    scores[20 + 17] = bad;
    CHECK(support::contains(message_of(s), "token 17 of sequence 0, head 1"));
    CHECK(support::contains(message_of(s), "; "));
  }
  CHECK(support::contains(message_of(s), "-inf"));
  rows[1].active = false;
  CHECK(message_of(s).empty());
}

TEST_CASE("selection: the same on every number of threads, and no call after the first allocates") {
  threads pool(3);
  host serial, threaded(pool.as_executor(0));
  for (bool const scattered : {false, true}) {
    generator random(99);
    reference::selection_shape shape{
        .sequences = 4, .heads = 5, .most_tokens = 9000, .scattered = scattered, .levels = 7};
    auto in = reference::random_selection(random, shape);
    auto const s = in.view();
    keep_set one, many;
    std::vector<std::int32_t> counts(5), threaded_counts(5);
    for (int round = 0; round < 3; ++round) {
      auto const before = allocations();
      kernels::require_finite(serial, s), kernels::require_finite(threaded, s);
      kernels::select_best(serial, s, one), kernels::select_best(threaded, s, many);
      kernels::select::count_best(serial, s, 1, kernels::select::best_of{3000, 10}, counts.data());
      kernels::select::count_best(threaded, s, 1, kernels::select::best_of{3000, 10}, threaded_counts.data());
      if (round > 1) CHECK(allocations() == before);
    }
    CHECK(one.tokens == many.tokens);
    CHECK(counts == threaded_counts);
  }
}

}  // namespace kernels_select_best_test
