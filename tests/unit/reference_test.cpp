// SPDX-License-Identifier: Apache-2.0
// The references are checked against the golden fixtures and against small numbers worked out by hand, so that they can
// be trusted.
#include <algorithm>
#include <cmath>
#include <string>

#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace reference_test {

using reference::counts;
using reference::index_row;
using reference::index_rows;
using reference::row;
using reference::rows;

namespace {

constexpr double float_noise = 2e-6;  // of fixtures that were computed in float32

double worst_difference(rows const& a, rows const& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0.0;
  for (std::size_t h = 0; h < a.size(); ++h) {
    REQUIRE(a[h].size() == b[h].size());
    for (std::size_t j = 0; j < a[h].size(); ++j) worst = std::max(worst, std::abs(a[h][j] - b[h][j]));
  }
  return worst;
}

rows first_columns(rows const& in, std::size_t count) {
  rows out;
  for (row const& r : in) out.emplace_back(r.begin(), r.begin() + static_cast<std::ptrdiff_t>(count));
  return out;
}

index_row below(index_row const& kept, std::size_t end) {
  index_row out;
  std::copy_if(kept.begin(), kept.end(), std::back_inserter(out), [&](std::size_t j) { return j < end; });
  return out;
}

index_row last(std::size_t count, std::size_t N) {
  index_row out;
  for (std::size_t j = N - count; j < N; ++j) out.push_back(j);
  return out;
}

/// Same window at the end, and before it equal up to ties of the scores.
void check_kept(rows const& scores, std::size_t window, index_rows const& expected, index_rows const& obtained,
                double tolerance) {
  REQUIRE(expected.size() == obtained.size());
  for (std::size_t h = 0; h < scores.size(); ++h) {
    std::size_t const M = scores[h].size();
    CAPTURE(h, expected[h], obtained[h]);
    REQUIRE(expected[h].size() >= window);
    std::size_t const k = expected[h].size() - window;
    CHECK(golden::equal_up_to_ties(scores[h], k, below(expected[h], M), below(obtained[h], M), tolerance));
    index_row tail(obtained[h].end() - static_cast<std::ptrdiff_t>(window), obtained[h].end());
    CHECK(tail == last(window, M + window));
  }
}

reference::layer random_layer(reference::generator& random, std::size_t Hq, std::size_t H, std::size_t N,
                              std::size_t D) {
  reference::layer out;
  out.queries = {Hq, N, D, random.normals(Hq * N * D, 1.5)};
  out.keys = {H, N, D, random.normals(H * N * D, 1.5)};
  out.values = {H, N, D, random.normals(H * N * D)};
  return out;
}

}  // namespace

// Golden fixtures
// ---------------------------------------------------------------------------------------------------------------

TEST_CASE("reference/golden: H2O column sums, column means and log-sum-exps", "[reference][golden]") {
  auto const file = golden::load("h2o_prefill");
  auto const in = golden::inputs().layer;
  rows const lse = reference::row_lse(in);
  CHECK(worst_difference(lse, golden::rows(file, "lse_natural")) < 1e-6);
  rows base2 = lse;
  for (row& r : base2)
    for (double& x : r) x /= std::log(2.0);
  CHECK(worst_difference(base2, golden::rows(file, "lse_base2")) < 1e-6);
  CHECK(worst_difference(reference::column_sums(in), golden::rows(file, "column_sums")) < 1e-6);
  CHECK(worst_difference(reference::column_means(in), golden::rows(file, "column_means")) < 1e-6);
  auto const rows_that_see = golden::value<counts>(file, "rows_that_see");
  REQUIRE(rows_that_see.size() == in.N());
  for (std::size_t j = 0; j < in.N(); ++j) CHECK(rows_that_see[j] == in.N() - j);
}

TEST_CASE("reference/golden: H2O decoding as in the authors' real-drop code", "[reference][golden]") {
  auto const file = golden::load("h2o_real_drop");
  auto const recent = golden::size(file, "recent");
  reference::decode_options const o{golden::size(file, "hh") + recent, recent, 0};
  auto const heads = golden::size(file, "heads");
  auto const L0 = golden::size(file, "L0");
  std::vector<reference::head_cache> cache(heads);
  std::size_t position = L0;
  for (auto const& step : golden::member(file, "rows")) {
    auto const attention = golden::as_tensor(step, "attn");
    auto const flat = golden::as_rows(attention);
    bool const prompt = cache[0].positions.empty();
    for (std::size_t h = 0; h < heads; ++h) {
      if (prompt) {
        row sums(L0, 0.0);
        for (std::size_t i = 0; i < L0; ++i)
          for (std::size_t j = 0; j < L0; ++j) sums[j] += flat[h * L0 + i][j];
        cache[h] = reference::h2o_prefill(sums, o);
      } else {
        cache[h] = reference::h2o_step(cache[h], position, flat[h], o);
      }
      CHECK(cache[h].positions == golden::index_rows(step, "kept")[h]);
      if (step.contains("hh_score"))
        CHECK(worst_difference({cache[h].scores}, {golden::rows(step, "hh_score")[h]}) < 1e-5);
    }
    if (!prompt) ++position;
  }
}

TEST_CASE("reference/golden: kvpress scores: SnapKV, key norm, observed attention, streaming, projected values",
          "[reference][golden]") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs();
  std::size_t const N = in.layer.N();
  std::size_t const W = 8;  // named by the fixture's key
  rows const snapkv = first_columns(golden::rows(file, "snapkv_w8_k5_avg"), N - W);
  reference::window_options o{W, 5, reference::pool::average, reference::reduce::mean, true};
  CHECK(worst_difference(reference::window_scores(in.layer, o), snapkv) < float_noise);
  o.pool_before_group = false;  // average and mean commute
  CHECK(worst_difference(reference::window_scores(in.layer, o), snapkv) < float_noise);
  CHECK(worst_difference(reference::negative_key_norms(in.layer), golden::rows(file, "knorm")) < 1e-5);
  CHECK(worst_difference(reference::column_means(in.layer), golden::rows(file, "observed_attention")) < float_noise);
  auto const streaming = golden::rows(file, "streaming_r0.5_sink4");
  std::size_t const pruned = N - reference::kvpress_count(N, 0.5);
  for (row const& r : streaming) CHECK(worst_difference({r}, {reference::streaming_score(N, 4, pruned)}) == 0.0);
  index_rows const kept = reference::keep_streaming(streaming.size(), N, N - pruned, 4);
  for (std::size_t h = 0; h < kept.size(); ++h)
    for (std::size_t j = 0; j < N; ++j)
      CHECK((std::count(kept[h].begin(), kept[h].end(), j) == 1) == (streaming[h][j] == 1.0));
  CHECK(worst_difference(reference::projected_norms(in.layer, in.output), golden::rows(file, "wo_v_l1norm")) < 1e-4);
}

TEST_CASE("reference/golden: AhaKV gains, value prior, scores and kept sets", "[reference][golden]") {
  auto const file = golden::load("ahakv");
  auto const in = golden::inputs().layer;
  for (auto const& c : golden::member(file, "cases")) {
    reference::ahakv_options o;
    o.recent = golden::size(c, "recent");
    o.value_pool = golden::size(c, "value_pool");
    o.use_gain = golden::value<bool>(c, "step_gain");
    o.use_prior = golden::value<bool>(c, "value_prior");
    auto const budget = golden::size(c, "budget");
    CAPTURE(o.recent, budget, o.value_pool, o.use_gain, o.use_prior);
    row gains;
    for (std::size_t i = in.N() - o.recent; i < in.N(); ++i)
      gains.push_back(o.use_gain ? reference::step_gain(i + 1, budget) : 1.0);
    CHECK(worst_difference({gains}, {golden::value<row>(c, "gain_of_row")}) < 1e-9);
    auto prior_always = o;
    prior_always.use_prior = true;
    // present when unused, too
    CHECK(worst_difference(reference::value_prior(in, prior_always), golden::rows(c, "value_prior_of_token")) < 1e-6);
    rows const scores = reference::ahakv_scores(in, budget, o);
    CHECK(worst_difference(scores, golden::rows(c, "scores")) < 1e-6);
    check_kept(scores, o.recent, golden::index_rows(c, "keep"), reference::keep_ahakv(in, budget, o), 1e-9);
  }
}

TEST_CASE("reference/golden: Ada-KV as the authors round", "[reference][golden]") {
  auto const file = golden::load("ada_official");
  for (auto const& c : file) {
    reference::layer in;
    in.queries = golden::cube(c, "Qwin");
    in.keys = golden::cube(c, "K");
    auto const W = golden::size(c, "window");
    auto const cap = golden::size(c, "cap");
    reference::snapkv_options snap;
    snap.score.window = W;
    snap.score.kernel = golden::size(c, "kernel");
    snap.score.pooling =
        golden::value<std::string>(c, "pool") == "avgpool" ? reference::pool::average : reference::pool::max;
    snap.score.group = golden::value<std::string>(c, "gqa") == "max" ? reference::reduce::max : reference::reduce::mean;
    rows const scores = golden::rows(c, "scores");
    CAPTURE(cap, W, golden::value<double>(c, "alpha"));
    CHECK(worst_difference(reference::window_scores(in, snap.score), scores) < float_noise);

    reference::ada_options ada;
    ada.floor_permille = std::lround(golden::value<double>(c, "alpha") * 1000.0);
    ada.how = reference::rounding::authors;
    ada.normalize = golden::value<bool>(c, "normalize");
    reference::evictable const interval = snap.interval(in.N());
    std::size_t base = cap - W;  // the code caps nothing: it may exceed the evictable tokens
    if (golden::value<bool>(c, "pyramid")) {
      auto const layers = golden::size(c, "layers");
      base = reference::pyramid_budgets_authors(layers, base, interval.size(), golden::size(c, "beta"))
                 .at(golden::size(c, "layer"));
    }
    CHECK(base == golden::size(c, "base_capacity"));
    CHECK(static_cast<std::size_t>(ada.floor_permille) * base / 1000 == golden::size(c, "floor_capacity"));
    counts const budgets = reference::ada_budgets(scores, base, ada);
    counts lengths = budgets;
    for (std::size_t& n : lengths) n += W;
    CHECK(lengths == golden::value<counts>(c, "head_lens"));
    check_kept(scores, W, golden::index_rows(c, "kept_sorted"), reference::keep_best(scores, budgets, interval), 0.0);

    ada.how = reference::rounding::exact;
    CHECK(reference::total(reference::ada_budgets(scores, base, ada)) ==
          scores.size() * std::min(base, interval.size()));
  }
}

TEST_CASE("reference/golden: kvpress' forced floor", "[reference][golden]") {
  auto const file = golden::load("head_budget_kvpress");
  for (auto const& c : file) {
    rows const scores = golden::rows(c, "scores");
    auto const alpha = golden::value<double>(c, "alpha");
    std::size_t const n = reference::kvpress_count(golden::size(c, "L"), golden::value<double>(c, "ratio"));
    index_rows const expected = golden::index_rows(c, "kept_adakv");
    index_rows const obtained = reference::forced_floor(scores, n, alpha);
    CAPTURE(scores.size(), golden::size(c, "L"), golden::value<double>(c, "ratio"), alpha);
    std::size_t sum = 0;
    for (index_row const& r : expected) sum += r.size();
    CHECK(sum == n * scores.size());
    if (golden::value<bool>(c, "distinct")) {
      CHECK(obtained == expected);
    } else {
      CHECK(golden::equal_up_to_ties(scores, sum, expected, obtained, 0.0));
    }
  }
}

TEST_CASE("reference/golden: PyramidKV layer budgets as the authors round", "[reference][golden]") {
  auto const file = golden::load("layer_budgets");
  std::size_t official = 0;
  for (auto const& c : file) {
    // kvpress rows: its fall-back to uniform is a bug
    if (golden::value<std::string>(c, "impl") != "official_floor") continue;
    ++official;
    auto const layers = golden::size(c, "layers");
    std::size_t const base = golden::size(c, "cap") - golden::size(c, "window");
    std::size_t const M = golden::size(c, "L") - golden::size(c, "window");
    CHECK(reference::pyramid_budgets_authors(layers, base, M, golden::size(c, "beta")) ==
          golden::value<counts>(c, "budgets"));
    counts const exact = reference::pyramid_budgets(layers, base, M, golden::size(c, "beta"));
    CHECK(reference::total(exact) == layers * base);
    CHECK(std::is_sorted(exact.rbegin(), exact.rend()));
  }
  CHECK(official > 0);
}

// By hand
// ----------------------------------------------------------------------------------------------------

TEST_CASE("reference: pooling at the edges", "[reference]") {
  row const x{-3.0, -1.0, -4.0, -1.5};
  CHECK(reference::pooled(x, 3, reference::pool::max) == row{-1.0, -1.0, -1.0, -1.5});
  CHECK(reference::pooled(row{3, 3, 3, 3}, 3, reference::pool::average) == row{2, 3, 3, 2});
  CHECK(reference::pooled(x, 1, reference::pool::average) == x);
  CHECK(reference::pooled(row{5}, 7, reference::pool::max) == row{5});
  CHECK(reference::pooled(row{7}, 7, reference::pool::average) == row{1});
}

TEST_CASE("reference: the total order", "[reference]") {
  CHECK(reference::top_k({1, 2, 2, 2, 0}, 2) == index_row{2, 3});
  CHECK(reference::top_k({0.0, -0.0, 0.0, -0.0}, 2) == index_row{2, 3});
  CHECK(reference::top_k({1, 2}, 0).empty());
  CHECK(reference::top_k({1, 2}, 9) == index_row{0, 1});
  // position 1 before 0, head 0 before 2
  CHECK(reference::global_top_counts({{1, 2}, {2, 1}, {2, 2}}, 1) == counts{1, 0, 0});
  CHECK(reference::global_top_counts({{1, 2}, {2, 1}, {2, 2}}, 2) == counts{1, 0, 1});
  CHECK(reference::global_top_counts({{1, 2}, {2, 1}, {2, 2}}, 3) == counts{1, 1, 1});
}

TEST_CASE("reference: comparison up to ties", "[reference]") {
  row const scores{5, 3, 3, 3, 1};
  CHECK(reference::equal_up_to_ties(scores, 2, {0, 1}, {0, 3}, 0.0));
  CHECK_FALSE(reference::equal_up_to_ties(scores, 2, {0, 1}, {1, 3}, 0.0));
  CHECK_FALSE(reference::equal_up_to_ties(scores, 2, {0, 1}, {0, 4}, 0.0));
  CHECK_FALSE(reference::equal_up_to_ties(scores, 2, {0, 1}, {0}, 0.0));
  CHECK_FALSE(reference::equal_up_to_ties(scores, 2, {0, 1}, {0, 0}, 0.0));
  CHECK(reference::equal_up_to_ties(scores, 2, {0, 1}, {0, 4}, 2.0));
  CHECK(reference::is_top_up_to_ties(scores, {0, 2}, 0.0));
  CHECK_FALSE(reference::is_top_up_to_ties(scores, {1, 2}, 0.0));
}

TEST_CASE("reference: largest remainder, clipping and redistribution", "[reference]") {
  // tie of remainders: lower head
  CHECK(reference::largest_remainder({1500, 2500, 1000}, 1000, 5, {9, 9, 9}) == counts{2, 2, 1});
  CHECK(reference::largest_remainder({1400, 2600, 1000}, 1000, 5, {9, 9, 9}) == counts{1, 3, 1});
  // 3 clipped: order 1, 0(full), 2
  CHECK(reference::largest_remainder({4300, 600, 100}, 1000, 5, {2, 9, 9}) == counts{2, 2, 1});
  CHECK(reference::largest_remainder({5000, 0, 0}, 1000, 5, {1, 1, 1}) == counts{1, 1, 1});  // all full
}

TEST_CASE("reference: Ada budgets are exact and respect the floor", "[reference]") {
  reference::generator random(11);
  CAPTURE(random.seed());
  for (int trial = 0; trial < 200; ++trial) {
    std::size_t const H = 1 + random.below(6);
    std::size_t const M = 1 + random.below(20);
    std::size_t const base = random.below(M + 1);
    rows scores;
    for (std::size_t h = 0; h < H; ++h) scores.push_back(random.tied(M, 5));
    reference::ada_options o;
    o.floor_permille = static_cast<std::int64_t>(random.below(1001));
    counts const B = reference::ada_budgets(scores, base, o);
    CHECK(reference::total(B) == H * base);
    for (std::size_t const b : B) {
      CHECK(b <= M);
      CHECK(b >= static_cast<std::size_t>(o.floor_permille) * base / 1000);
    }
    if (o.floor_permille == 1000) CHECK(B == counts(H, base));
  }
}

TEST_CASE("reference: PyramidKV's line", "[reference]") {
  CHECK(reference::pyramid_budgets(1, 10, 100) == counts{10});
  CHECK(reference::pyramid_budgets(3, 20, 1000) == counts{39, 20, 1});
  CHECK(reference::pyramid_budgets(3, 20, 30) == counts{30, 20, 10});  // hi clipped to M
  CHECK(reference::pyramid_budgets(4, 50, 40) == counts(4, 40));       // nothing to evict
  reference::generator random(12);
  for (int trial = 0; trial < 200; ++trial) {
    std::size_t const L = 1 + random.below(40);
    std::size_t const M = 2 + random.below(500);
    std::size_t const base = random.below(M);
    counts const B = reference::pyramid_budgets(L, base, M, 1 + random.below(30));
    CHECK(reference::total(B) == L * base);
    for (std::size_t const b : B) CHECK(b <= M);
  }
}

TEST_CASE("reference: Ada's free budgets maximise the kept mass, and epsilon bounds the loss", "[reference][theory]") {
  reference::generator random(13);
  CAPTURE(random.seed());
  for (int trial = 0; trial < 10; ++trial) {
    std::size_t const H = 3;
    std::size_t const G = 1 + random.below(2);
    std::size_t const N = 7;
    reference::layer const in = random_layer(random, H * G, H, N, 4);
    reference::projection const wo{H * G * 4, 6, random.normals(H * G * 4 * 6)};
    std::size_t const i = N - 1;
    rows per_query_head;
    for (std::size_t hq = 0; hq < in.Hq(); ++hq) per_query_head.push_back(reference::attention_row(in, hq, i));
    rows const weights = reference::reduce_group(per_query_head, H, reference::reduce::sum);
    reference::evictable const all(N, {});
    for (std::size_t base = 1; base < N; ++base) {
      index_rows const adaptive = reference::keep_ada(weights, base, all, {0, reference::rounding::exact, false});
      index_rows const floored = reference::keep_ada(weights, base, all, {200, reference::rounding::exact, false});
      index_rows const uniform = reference::keep_uniform(weights, base, all);
      row const mass = reference::retained_mass(weights, adaptive);
      double sum = 0.0;
      for (double const m : mass) sum += m;
      CHECK(sum == Approx(reference::best_mass(weights, H * base)).epsilon(1e-12));
      double const C = reference::projection_bound(in, wo);
      double const e_adaptive = reference::epsilon(C, reference::retained_mass(in, i, adaptive));
      double const e_floored = reference::epsilon(C, reference::retained_mass(in, i, floored));
      double const e_uniform = reference::epsilon(C, reference::retained_mass(in, i, uniform));
      CHECK(e_adaptive <= e_floored + 1e-9);
      CHECK(e_floored <= e_uniform + 1e-9);
      bool const some_head_is_empty =
          std::any_of(adaptive.begin(), adaptive.end(), [](index_row const& r) { return r.empty(); });
      if (!some_head_is_empty) CHECK(reference::l1_loss(in, wo, i, adaptive) <= e_adaptive + 1e-9);
      CHECK(reference::l1_loss(in, wo, i, uniform) <= e_uniform + 1e-9);
    }
  }
}

TEST_CASE("reference: H2O's step by hand", "[reference]") {
  reference::decode_options const o{3, 1, 0};
  reference::head_cache const start{{0, 4, 7}, {1.0, 0.5, 0.25}};
  // 1, 0.5, 0.75 and the recent one: 4 goes
  auto const evicted = reference::h2o_step(start, 8, {0.0, 0.0, 0.5, 0.5}, o);
  CHECK(evicted.positions == index_row{0, 7, 8});
  CHECK(evicted.scores == row{1.0, 0.75, 0.5});
  // a tie: the older goes
  CHECK(reference::h2o_step(start, 8, {0.0, 0.0, 0.25, 0.75}, o).positions == index_row{0, 7, 8});
  // the newest is safe with weight 0
  CHECK(reference::h2o_step(start, 8, {0.0, 1.0, 0.0, 0.0}, o).positions == index_row{0, 4, 8});
  // within the slack
  CHECK(reference::h2o_step(start, 8, {0.0, 1.0, 0.0, 0.0}, {3, 1, 1}).positions == index_row{0, 4, 7, 8});
}

TEST_CASE("reference: H2O's replay evicts the smallest accumulated score", "[reference]") {
  reference::generator random(14);
  CAPTURE(random.seed());
  reference::layer const in = random_layer(random, 4, 2, 40, 8);
  std::size_t const N = 20;
  reference::decode_options const o{12, 4, 0};
  auto const trace = reference::h2o_replay(in, N, o);
  REQUIRE(trace.size() == in.N() - N + 1);
  CHECK(trace[0][0].positions == reference::keep_h2o(reference::prefix(in, N), o.budget, {0, o.recent, 0})[0]);
  for (auto const& step : trace)
    for (auto const& head : step) {
      CHECK(head.positions.size() == o.budget);
      CHECK(std::is_sorted(head.positions.begin(), head.positions.end()));
    }
  auto const slack = reference::h2o_replay(in, N, {12, 4, 5});
  for (std::size_t s = 0; s < slack.size(); ++s) CHECK(slack[s][1].positions.size() == 12 + s % 6);
}

TEST_CASE("reference: AhaKV's replay keeps the ring's laws", "[reference]") {
  reference::generator random(15);
  CAPTURE(random.seed());
  reference::layer const in = random_layer(random, 4, 2, 48, 8);
  std::size_t const N = 24;
  reference::ahakv_options o;
  o.recent = 6;
  reference::decode_options const d{16, 6, 0};
  auto const trace = reference::ahakv_replay(in, N, d, o, reference::prior_of_cache(in, o));
  REQUIRE(trace.size() == in.N() - N + 1);
  CHECK(trace[0][1].positions == reference::keep_ahakv(reference::prefix(in, N), d.budget, o)[1]);
  for (auto const& step : trace)
    for (auto const& head : step) CHECK(head.positions.size() == d.budget);

  o.use_prior = false;  // nothing evicted: every row sums to 1, so the scores sum to r
  auto const full = reference::ahakv_replay(in, N, {64, 6, 0}, o, reference::prior_of_sequence(in, o));
  for (auto const& step : full)
    for (auto const& head : step) {
      double sum = 0.0;
      for (double const x : head.scores) sum += x;
      CHECK(sum == Approx(static_cast<double>(o.recent)));
    }
}

TEST_CASE("reference: step gain at its boundaries", "[reference]") {
  CHECK(reference::step_gain(100, 100) == 0.0);
  CHECK(reference::step_gain(50, 100, 0.5) == 0.5);
  CHECK(reference::step_gain(101, 100, 0.5) == 0.5);
  CHECK(reference::step_gain(16487, 10000) == Approx(1.0).epsilon(1e-4));  // i = k·√e
}

TEST_CASE("reference: soft cap, own scale, kept subsets and the oracle", "[reference]") {
  reference::generator random(16);
  CAPTURE(random.seed());
  reference::layer in = random_layer(random, 2, 1, 12, 4);
  double const plain = reference::logit(in, 1, 11, 3);
  in.scale = 0.25;
  CHECK(reference::logit(in, 1, 11, 3) == Approx(plain * 0.5));
  in.softcap = 1e6;
  CHECK(reference::logit(in, 1, 11, 3) == Approx(plain * 0.5));
  in.softcap = 0.5;
  CHECK(std::abs(reference::logit(in, 1, 11, 3)) <= 0.5);
  row const everything = reference::attention_output(in, 0, 11, reference::first_indices(12));
  row const one = reference::attention_output(in, 0, 11, {5});
  CHECK(everything.size() == 4);
  for (std::size_t d = 0; d < 4; ++d) CHECK(one[d] == Approx(in.values.at(0, 5, d)));
  rows const future = reference::oracle_scores(in, 9);
  for (double const x : future[0]) CHECK((x > 0.0 && x < 1.0));
  CHECK(reference::keep_oracle(in, 9, 5, {1, 2, 0})[0].size() == 5);
}

TEST_CASE("reference: every preset keeps exactly its budget", "[reference]") {
  reference::generator random(17);
  CAPTURE(random.seed());
  std::size_t const N = 30, H = 3, L = 4, budget = 14;
  reference::layer const in = random_layer(random, 6, H, N, 4);
  reference::snapkv_options snap;
  snap.score.window = 4;
  snap.sinks = 2;
  auto const size_of = [](index_rows const& kept) {
    std::size_t sum = 0;
    for (index_row const& r : kept) sum += r.size();
    return sum;
  };
  reference::ahakv_options aha;
  aha.recent = 5;
  CHECK(size_of(reference::keep_streaming(H, N, budget)) == H * budget);
  CHECK(size_of(reference::keep_h2o(in, budget)) == H * budget);
  CHECK(size_of(reference::keep_snapkv(in, budget, snap)) == H * budget);
  CHECK(size_of(reference::keep_ahakv(in, budget, aha)) == H * budget);
  CHECK(size_of(reference::keep_ada_snapkv(in, budget, snap, {})) == H * budget);
  std::size_t pyramid = 0, ada_pyramid = 0;
  for (std::size_t l = 0; l < L; ++l) {
    pyramid += size_of(reference::keep_pyramidkv(in, budget, snap, {l, L, 20, reference::rounding::exact}));
    ada_pyramid += size_of(reference::keep_ada_pyramidkv(in, budget, snap, {l, L, 20, reference::rounding::exact}, {}));
  }
  CHECK(pyramid == L * H * budget);
  CHECK(ada_pyramid == L * H * budget);
  CHECK(reference::keep_snapkv(in, N, snap) == reference::identity(H, N));
}

TEST_CASE("reference: random inputs are the same everywhere", "[reference]") {
  reference::generator a(1), b(1);
  CHECK(a.normals(100) == b.normals(100));
  // mt19937_64's first output for its default seed
  CHECK(reference::generator(5489).bits() == 14514284786278117030ULL);
  double sum = 0.0, squares = 0.0;
  for (double const x : a.normals(20000)) {
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / 20000.0) < 0.03);
  CHECK(squares / 20000.0 == Approx(1.0).epsilon(0.05));
}

}  // namespace reference_test
