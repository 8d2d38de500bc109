// SPDX-License-Identifier: Apache-2.0
// Budgets of heads and of layers against the authors' and kvpress' numbers.
#include <cmath>
#include <string>

#include <kvevict/kvevict.hpp>

#include "support/golden_scores.hpp"

namespace budgets_test {

using namespace support;

namespace {

/// Keep set of one sequence of H heads × N tokens when the scores are these and the last W tokens are protected.
template <class Heads> index_rows kept_by(rows const& scores, std::size_t W, std::int32_t budget, Heads heads) {
  batch const in = batch_of({{scores.size(), scores[0].size() + W, 8},
                             {scores.size(), scores[0].size() + W, 8},
                             {scores.size(), scores[0].size() + W, 8}});
  index_rows out;
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    auto const policy = kvevict::policy{given_scores{&scores}, kvevict::protect{0, int32(W)}}.with(heads);
    out = rows_of_sequence(kvevict::plan(ctx, policy, kvevict::contents(cache.view), {.tokens_per_head = budget}), 0);
  });
  return out;
}

counts lengths(index_rows const& kept) {
  counts out;
  for (auto const& r : kept) out.push_back(r.size());
  return out;
}

void check_kept(rows const& scores, index_rows const& expected, index_rows const& kept) {
  for (std::size_t h = 0; h < scores.size(); ++h) {
    auto const older = [&](index_row const& x) {
      index_row r;
      for (std::size_t const j : x)
        if (j < scores[h].size()) r.push_back(j);
      return r;
    };
    CAPTURE(h);
    CHECK(golden::equal_up_to_ties(scores[h], older(expected[h]).size(), older(expected[h]), older(kept[h]), 0.0));
  }
}

}  // namespace

TEST_CASE("golden: ada_official, head budgets as the authors round, and exact ones") {
  for (auto const& c : golden::load("ada_official")) {
    auto const W = golden::size(c, "window"), cap = golden::size(c, "cap");
    rows const scores = golden::rows(c, "scores");
    std::size_t const M = scores[0].size(), N = M + W;
    auto const floor = static_cast<std::int32_t>(std::lround(golden::value<double>(c, "alpha") * 1000));
    CAPTURE(cap, W, floor, golden::value<bool>(c, "normalize"), golden::value<bool>(c, "pyramid"));

    std::size_t base = cap - W;
    if (golden::value<bool>(c, "pyramid")) {
      kvevict::layers::pyramid const p{golden::value<std::int32_t>(c, "beta"), kvevict::rounding::authors};
      base = static_cast<std::size_t>(p({int32(cap), int32(W), int32(N), golden::value<std::int32_t>(c, "layer"),
                                         golden::value<std::int32_t>(c, "layers")})) -
             W;
    }
    CHECK(base == golden::size(c, "base_capacity"));
    CHECK(static_cast<std::size_t>(floor) * base / 1000 == golden::size(c, "floor_capacity"));

    std::vector<float> weights;  // the option `normalize`: share of a head's sum that its `base` best hold
    for (auto const& r : scores) {
      double top = 0, all = 0;
      for (std::size_t const j : reference::top_k(r, base)) top += r[j];
      for (double const x : r) all += x;
      weights.push_back(static_cast<float>(all == 0 ? 1 : top / all));
    }
    kvevict::heads::adaptive heads{floor, kvevict::rounding::authors,
                                   golden::value<bool>(c, "normalize") ? weights.data() : nullptr};
    index_rows const kept = kept_by(scores, W, int32(base + W), heads);
    CHECK(lengths(kept) == golden::value<counts>(c, "head_lens"));
    std::size_t end = 0;
    auto const offsets = golden::value<counts>(c, "cu_klen");
    for (std::size_t h = 0; h < kept.size(); ++h) CHECK((end += kept[h].size()) == offsets[h + 1]);
    check_kept(scores, golden::index_rows(c, "kept_sorted"), kept);

    heads.round = kvevict::rounding::exact;
    CHECK(reference::total(lengths(kept_by(scores, W, int32(base + W), heads))) ==
          scores.size() * std::min(base + W, N));
  }
}

TEST_CASE("golden: ada_official, window scores") {
  for (auto const& c : golden::load("ada_official")) {
    rows const expected = golden::rows(c, "scores");
    reference::layer in{golden::cube(c, "Qwin"), golden::cube(c, "K"), {}};
    in.values = {in.H(), in.N(), in.D()};
    auto const W = golden::value<std::int32_t>(c, "window");
    kvevict::pool_options const how{
        golden::value<std::int32_t>(c, "kernel"),
        golden::value<std::string>(c, "pool") == "avgpool" ? kvevict::pooling::average : kvevict::pooling::max};
    auto const group =
        golden::value<std::string>(c, "gqa") == "max" ? kvevict::group_reduce::max : kvevict::group_reduce::mean;
    kvevict::policy const policy{kvevict::score::window_attention{W, how, group}, kvevict::protect{0, W}};
    // the fixture has W query rows only
    attention all;
    all.Hq = in.Hq(), all.D = in.D();
    for (std::size_t t = 0; t < in.queries.tokens; ++t) {
      for (std::size_t h = 0; h < in.Hq(); ++h)
        for (std::size_t d = 0; d < in.D(); ++d) all.q.push_back(static_cast<float>(in.queries.at(h, t, d)));
      all.positions.push_back(int32(in.N() - in.queries.tokens + t));
    }
    all.begin.push_back(int32(in.queries.tokens));
    with_cache(batch_of(in), [&](auto& cache) {
      kvevict::host ctx;
      std::vector<float> values;
      kvevict::scores(ctx, policy, kvevict::prompt(cache.view, all.queries()), {.tokens_per_head = W}, values);
      double worst = 0;
      for (std::size_t h = 0; h < in.H(); ++h)
        for (std::size_t j = 0; j < expected[h].size(); ++j)
          worst = std::max(worst, std::abs(static_cast<double>(values[h * in.N() + j]) - expected[h][j]));
      CHECK(worst < 4e-6);
    });
  }
}

TEST_CASE("golden: head_budget_kvpress, forced floor") {
  for (auto const& c : golden::load("head_budget_kvpress")) {
    rows const scores = golden::rows(c, "scores");
    std::size_t const n = reference::kvpress_count(golden::size(c, "L"), golden::value<double>(c, "ratio"));
    auto const floor = static_cast<std::int32_t>(std::lround(golden::value<double>(c, "alpha") * 1000));
    CAPTURE(scores.size(), n, floor);
    index_rows const expected = golden::index_rows(c, "kept_adakv");
    index_rows const kept = kept_by(scores, 0, int32(n), kvevict::heads::forced_floor{floor});
    CHECK(reference::total(lengths(kept)) == n * scores.size());
    if (golden::value<bool>(c, "distinct"))
      CHECK(kept == expected);
    else
      CHECK(golden::equal_up_to_ties(scores, n * scores.size(), expected, kept, 0.0));
  }
}

TEST_CASE("golden: layer_budgets of the official code, and exact ones") {
  std::size_t official = 0;
  for (auto const& c : golden::load("layer_budgets")) {
    if (golden::value<std::string>(c, "impl") != "official_floor") continue;  // listed in coverage_test.cpp
    ++official;
    auto const L = golden::value<std::int32_t>(c, "layers"), cap = golden::value<std::int32_t>(c, "cap"),
               W = golden::value<std::int32_t>(c, "window"), N = golden::value<std::int32_t>(c, "L"),
               beta = golden::value<std::int32_t>(c, "beta");
    auto const theirs = golden::value<std::vector<std::int32_t>>(c, "budgets");  // without the window
    CAPTURE(L, cap, W, N);
    std::int64_t sum = 0;
    for (std::int32_t l = 0; l < L; ++l) {
      kvevict::layer_query const q{cap, W, N, l, L};
      CHECK(kvevict::layers::pyramid{beta, kvevict::rounding::authors}(q)-W == theirs[static_cast<std::size_t>(l)]);
      sum += kvevict::layers::pyramid{beta}(q);
    }
    CHECK(sum == std::int64_t{L} * cap);
  }
  CHECK(official > 0);
}

}  // namespace budgets_test
