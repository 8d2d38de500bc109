// SPDX-License-Identifier: Apache-2.0
// The stages by themselves: layer and head budgets against the references, and what their options do.
#include <limits>
#include <numeric>

#include <kvevict/kernels/host.hpp>

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/layers/pyramid.hpp>

#include "support/batch.hpp"
#include "support/catch.hpp"

namespace policy_stages_test {

using namespace support;

namespace {

/// One sequence of H heads: M scored tokens each, W protected ones behind them.
struct scored_heads {
  std::vector<kvevict::row> row;
  std::vector<std::int64_t> begin{0};
  std::vector<float> values;

  scored_heads(rows const& scores, std::int32_t W, std::int32_t base) {
    for (std::size_t h = 0; h < scores.size(); ++h) {
      std::int32_t const M = int32(scores[h].size());
      row.push_back({0, int32(h), M + W, 0, M, M, base + W, true});
      for (double const x : scores[h]) values.push_back(static_cast<float>(x));
      values.resize(values.size() + static_cast<std::size_t>(W), 0.0f);
      begin.push_back(static_cast<std::int64_t>(values.size()));
    }
  }
  kvevict::score_rows view() { return {row.data(), 1, int32(row.size()), begin.data(), values.data(), nullptr, 0}; }
};

template <class Heads> counts budgets(rows const& scores, std::int32_t base, Heads const& heads, std::int32_t W = 3) {
  scored_heads in(scores, W, base);
  kvevict::host ctx;
  auto view = in.view();
  heads(ctx, view);
  counts out;
  for (auto const& r : in.row) out.push_back(static_cast<std::size_t>(r.budget - W));
  return out;
}

rows random_scores(reference::generator& random, std::size_t H, std::size_t M, std::size_t levels) {
  rows out;
  for (std::size_t h = 0; h < H; ++h) out.push_back(levels == 0 ? random.uniforms(M) : random.tied(M, levels));
  return out;
}

}  // namespace

TEST_CASE("pyramid: exact budgets fall, sum to L times the budget, and are the reference's") {
  reference::generator random(91);
  for (int trial = 0; trial < 400; ++trial) {
    auto const L = static_cast<std::int32_t>(1 + random.below(40)), W = static_cast<std::int32_t>(random.below(20)),
               M = static_cast<std::int32_t>(2 + random.below(500)),
               base = static_cast<std::int32_t>(random.below(static_cast<std::size_t>(M))),
               beta = static_cast<std::int32_t>(1 + random.below(30));
    CAPTURE(random.seed(), trial, L, W, M, base, beta);
    counts exact, authors;
    for (std::int32_t l = 0; l < L; ++l) {
      kvevict::layer_query const q{base + W, W, M + W, l, L};
      exact.push_back(static_cast<std::size_t>(kvevict::layers::pyramid{beta}(q)-W));
      authors.push_back(static_cast<std::size_t>(kvevict::layers::pyramid{beta, kvevict::rounding::authors}(q)-W));
    }
    CHECK(std::is_sorted(exact.rbegin(), exact.rend()));
    CHECK(reference::total(exact) == static_cast<std::size_t>(L * base));
    CHECK(exact == reference::pyramid_budgets(static_cast<std::size_t>(L), static_cast<std::size_t>(base),
                                              static_cast<std::size_t>(M), static_cast<std::size_t>(beta)));
    CHECK(authors == reference::pyramid_budgets_authors(static_cast<std::size_t>(L), static_cast<std::size_t>(base),
                                                        static_cast<std::size_t>(M), static_cast<std::size_t>(beta)));
  }
}

TEST_CASE("pyramid: the largest beta, stack, budget and length stay within 64 bits") {
  std::int32_t const most = std::numeric_limits<std::int32_t>::max(), base = 1 << 30, beta = 65536;
  kvevict::layers::pyramid const p{beta};
  CHECK(p({base, 0, most, 0, kvevict::most_layers}) == 2147467264);                    // 2·base − base/β
  CHECK(p({base, 0, most, kvevict::most_layers - 1, kvevict::most_layers}) == 16384);  // base/β
  std::int64_t sum = 0;
  for (std::int32_t l = 0; l < 300; ++l) sum += p({base, 0, most, l, 300});
  CHECK(sum == std::int64_t{300} * base);
}

TEST_CASE("layers: uniform and unlimited") {
  CHECK(kvevict::layers::uniform{}({20, 3, 100, 1, 4}) == 20);
  CHECK(kvevict::layers::unlimited{}({20, 3, 100, 1, 4}) == 100);
  CHECK(kvevict::layers::pyramid{}({20, 3, 100, 0, 1}) == 20);
}

TEST_CASE("adaptive: budgets are the reference's, exact in sum, above the floor, within the row") {
  reference::generator random(92);
  for (int trial = 0; trial < 300; ++trial) {
    std::size_t const H = 1 + random.below(9), M = 1 + random.below(60), levels = random.below(3) * 4;
    auto const base = static_cast<std::int32_t>(random.below(M));
    auto const floor = static_cast<std::int32_t>(random.below(3) == 0 ? 200 : random.below(1001));
    rows const scores = random_scores(random, H, M, levels);
    CAPTURE(random.seed(), trial, H, M, base, floor, levels);
    counts const exact = budgets(scores, base, kvevict::heads::adaptive{floor});
    CHECK(exact ==
          reference::ada_budgets(scores, static_cast<std::size_t>(base), {floor, reference::rounding::exact, false}));
    CHECK(reference::total(exact) == H * static_cast<std::size_t>(base));
    for (std::size_t const b : exact) {
      CHECK(b <= M);
      CHECK(b >= static_cast<std::size_t>(floor * base / 1000));
    }
    CHECK(budgets(scores, base, kvevict::heads::adaptive{floor, kvevict::rounding::authors}) ==
          reference::ada_budgets(scores, static_cast<std::size_t>(base), {floor, reference::rounding::authors, false}));
  }
}

TEST_CASE("adaptive: heads of different lengths share a budget exactly") {
  reference::generator random(93);
  for (int trial = 0; trial < 200; ++trial) {
    std::size_t const H = 2 + random.below(5);
    rows scores;
    std::size_t room = 0;
    for (std::size_t h = 0; h < H; ++h)
      scores.push_back(random.uniforms(random.below(40))), room += scores.back().size();
    auto const base = static_cast<std::int32_t>(random.below(room / H + 1));
    for (std::int32_t const floor : {0, 200, 1000}) {
      CAPTURE(random.seed(), trial, H, base, floor);
      counts const obtained = budgets(scores, base, kvevict::heads::adaptive{floor});
      CHECK(reference::total(obtained) == H * static_cast<std::size_t>(base));
      for (std::size_t h = 0; h < H; ++h) CHECK(obtained[h] <= scores[h].size());
    }
  }
}

TEST_CASE("adaptive: without rounding, budgets follow a permutation of the heads") {
  reference::generator random(94);
  for (int trial = 0; trial < 100; ++trial) {
    rows const scores = random_scores(random, 5, 30, 0);
    std::vector<std::size_t> const order{3, 1, 4, 0, 2};
    rows moved;
    for (std::size_t const h : order) moved.push_back(scores[h]);
    for (std::int32_t const floor : {0, 500, 1000}) {
      CAPTURE(random.seed(), trial, floor);
      counts const a = budgets(scores, 8, kvevict::heads::adaptive{floor}),
                   b = budgets(moved, 8, kvevict::heads::adaptive{floor});
      for (std::size_t h = 0; h < 5; ++h)
        CHECK((floor == 500 ? std::max(a[order[h]], b[h]) - std::min(a[order[h]], b[h]) <= 1 : a[order[h]] == b[h]));
    }
  }
}

TEST_CASE("adaptive: an inactive sequence keeps its budgets") {
  scored_heads in({{0.5, 0.1}, {0.2, 0.3}}, 1, 2);
  for (auto& r : in.row) r.active = false;
  kvevict::host ctx;
  auto view = in.view();
  kvevict::heads::adaptive{}(ctx, view);
  kvevict::heads::forced_floor{}(ctx, view);
  for (auto const& r : in.row) CHECK(r.budget == 3);
}

TEST_CASE("forced_floor: counts are the reference's") {
  reference::generator random(95);
  for (int trial = 0; trial < 200; ++trial) {
    std::size_t const H = 1 + random.below(6), M = 1 + random.below(50), n = random.below(M + 1),
                      tenth = random.below(11);
    rows const scores = random_scores(random, H, M, 0);
    CAPTURE(random.seed(), trial, H, M, n, tenth);
    counts expected;
    // ⌊α·n⌋ in integers: the reference takes α as a double, so it gets one that does not fall below
    for (auto const& r : reference::forced_floor(scores, n, (static_cast<double>(tenth) + 1e-9) / 10))
      expected.push_back(r.size());
    CHECK(budgets(scores, int32(n), kvevict::heads::forced_floor{int32(tenth) * 100}, 0) == expected);
  }
}

}  // namespace policy_stages_test
