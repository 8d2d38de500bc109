// SPDX-License-Identifier: Apache-2.0
// CriticalKV and Critical-Ada against kvpress: norms through W_O, both halves, and budgets of heads.
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/key_norm.hpp>
#include <kvevict/score/output_weighted.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/keep_sets.hpp"

namespace criticalkv_test {

using namespace support;
namespace score = kvevict::score;

namespace {

/// W_O of a fixture, (out, in) as PyTorch's Linear.
struct weights_of_output {
  std::vector<float> data;
  std::int64_t inputs;
  std::int32_t outputs, heads;

  explicit weights_of_output(golden::tensor const& t, std::size_t q_heads)
      : data(t.floats()),
        inputs(static_cast<std::int64_t>(t.dim(1))),
        outputs(int32(t.dim(0))),
        heads(int32(q_heads)) {}
  kvevict::projection operator()() const { return {data.data(), outputs, 1, inputs, 0, heads}; }
};

/// Scores of a fixture.
struct given {
  rows values;
  template <class Context, class Evidence> void operator()(Context&, Evidence const&, kvevict::score_rows& out) const {
    for (std::int64_t r = 0; r < out.count(); ++r)
      for (std::size_t j = 0; out.rows[r].active && j < values[static_cast<std::size_t>(r)].size(); ++j)
        out.scores(r)[static_cast<std::int64_t>(j)] = static_cast<float>(values[static_cast<std::size_t>(r)][j]);
  }
};

template <class Score> auto halves(Score const& base) {
  return score::shares{score::share{500, base}, score::share{500, score::output_weighted{score::of_share_before{}}}}
      .with_rest_to_last();
}

}  // namespace

TEST_CASE("golden: scores_kvpress, norms of projected values and CriticalKV over Knorm") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  weights_of_output const wo(golden::as_tensor(golden::load("inputs"), "Wo"), in.Hq());
  std::size_t const N = in.N(), kept = N / 2;
  with_cache(batch_of(in), [&](auto& cache) {
    kvevict::host ctx;
    auto const e = kvevict::contents(cache.view).with_output(wo());
    auto const check = [&](auto const& scored, rows const& expected) {
      std::vector<float> values;
      kvevict::scores(ctx, kvevict::policy{scored}, e, {.tokens_per_head = 1}, values);
      for (std::size_t h = 0; h < in.H(); ++h)
        for (std::size_t j = 0; j < N; ++j)
          if (expected[h][j] < 1e30)
            CHECK(static_cast<double>(values[h * N + j]) == Approx(expected[h][j]).epsilon(1e-5));
    };
    rows const ones(in.H(), reference::row(N, 1.0));
    check(score::output_weighted{given{ones}, 0}, golden::rows(file, "wo_v_l1norm"));
    rows const both = golden::rows(file, "criticalkv_knorm_r0.5");  // the first half's have the largest float
    check(score::output_weighted{score::key_norm{}}, both);
    auto const keep = rows_of_sequence(
        kvevict::plan(ctx, kvevict::policy{halves(score::key_norm{})}, e, {.tokens_per_head = int32(kept)}), 0);
    for (std::size_t h = 0; h < in.H(); ++h) {
      index_row expected = reference::top_k(both[h], kept);
      std::sort(expected.begin(), expected.end());
      CHECK(keep[h] == expected);
    }
  });
}

TEST_CASE("golden: head_budget_kvpress, Critical-Ada") {
  std::size_t same = 0, forced = 0;
  for (auto const& c : golden::load("head_budget_kvpress")) {
    rows const scores = golden::rows(c, "scores");
    std::size_t const n = reference::kvpress_count(golden::size(c, "L"), golden::value<double>(c, "ratio"));
    auto const floor = static_cast<std::int32_t>(std::lround(golden::value<double>(c, "alpha") * 1000));
    reference::cube const values = golden::cube(c, "V");
    reference::layer const in{{values.heads, values.tokens, values.width}, values, values};
    weights_of_output const wo(golden::as_tensor(c, "Wo"), values.heads);
    index_rows const expected = golden::index_rows(c, "kept_criticaladakv");
    with_cache(batch_of(in), [&](auto& cache) {
      kvevict::host ctx;
      auto const policy = kvevict::policy{halves(given{scores}).dividing(score::heads_divide::whole_budget)}.with(
          kvevict::heads::forced_floor{floor});
      index_rows const kept = rows_of_sequence(
          kvevict::plan(ctx, policy, kvevict::contents(cache.view).with_output(wo()), {.tokens_per_head = int32(n)}),
          0);
      for (std::size_t h = 0; h < scores.size(); ++h) {
        CAPTURE(scores.size(), n, floor, h);
        CHECK(kept[h].size() == expected[h].size());
        // theirs forces the floor's tokens into the second half, too
        if (n * static_cast<std::size_t>(floor) / 1000 > kept[h].size() / 2)
          ++forced;
        else
          CHECK((++same, kept[h] == expected[h]));
      }
    });
  }
  CHECK((same >= 30 && forced > 0));
}

}  // namespace criticalkv_test
