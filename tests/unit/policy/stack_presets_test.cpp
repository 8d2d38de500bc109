// SPDX-License-Identifier: Apache-2.0
// Presets whose layers share their budget, against references in double.
#include <kvevict/kvevict.hpp>

#include <numeric>

#include "support/batch_cache.hpp"
#include "support/stack_presets.hpp"

namespace policy_stack_presets_test {

using namespace support;

TEST_CASE(
    "presets that divide over a stack of layers keep what a naive division keeps, from queries and softmax rows") {
  std::set<std::string> differ;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    batch const in = stack_presets::random_stack(seed);
    attention const rows = all_rows(in);
    stack of(in, stack_presets::L, placed::own_tables, true);
    kvevict::budget const ask{.tokens_per_head = stack_presets::budget, .layer_count = stack_presets::L};
    kvevict::host ctx;
    stack_presets::for_each([&](char const* name, auto const& policy, auto expected) {
      CAPTURE(seed, name);
      auto const view = of.whole();
      if (stack_presets::check(in, plan(ctx, policy, kvevict::prompt(view, rows.queries()), ask), expected))
        differ.insert(name);
      if (seed == 1) stack_presets::check(in, plan(ctx, policy, kvevict::prompt(view, rows.rows()), ask), expected);
      CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
            workspace_bytes(ctx, policy, {view.sequences(), 4, 2, 8, 60, 1 << 12, 1 << 12}));
    });
  }
  CHECK(differ.size() == 4);
}

TEST_CASE("layers share evenly where no attention changes, and CAKE refuses roots of 0") {
  batch const in = stack_presets::random_stack(3);
  attention const rows = all_rows(in);
  stack of(in, stack_presets::L, placed::layers_apart, true);
  kvevict::budget const ask{.tokens_per_head = stack_presets::budget, .layer_count = stack_presets::L};
  kvevict::host ctx;
  attention alike = rows;  // the last rows of a sequence pay the same attention
  for (std::size_t b = 0; b < in.B(); ++b) {
    auto const end = static_cast<std::size_t>(rows.begin[b + 1]);
    std::vector<float> weights(rows.slots, 0.0f);
    for (std::size_t j = 0; j < in.N[b] - 8; ++j) weights[j] = static_cast<float>(1 + j % (b + 2));
    float const sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
    for (float& x : weights) x /= sum;
    for (std::size_t i = (end - 8) * rows.Hq; i < end * rows.Hq; ++i)
      std::copy(weights.begin(), weights.end(), alike.weights.data() + i * rows.slots);
  }
  auto const shares_evenly = [&](kvevict::keep_set const& keep) {
    for (std::int64_t r = 0; r < keep.rows(); ++r)
      CHECK(keep.row(r).size == std::min(stack_presets::budget, keep.lengths[static_cast<std::size_t>(r)]));
  };
  auto const one_row = kvevict::presets::cake({.window = 1});
  shares_evenly(plan(ctx, one_row, kvevict::prompt(of.whole(), rows.queries()), ask));
  shares_evenly(plan(ctx, one_row, kvevict::prompt(of.whole(), rows.rows()), ask));
  shares_evenly(plan(ctx, kvevict::presets::cake({.window = 7}), kvevict::prompt(of.whole(), alike.rows()), ask));
  CHECK_THROWS_WITH(
      plan(ctx, kvevict::presets::cake({.change_root = 0}), kvevict::prompt(of.whole(), rows.queries()), ask),
      Catch::Contains("dispersion: roots of 1.0"));
}

TEST_CASE("CAKE's roots weigh spread against change") {
  batch const in = stack_presets::random_stack(4);
  attention const rows = all_rows(in);
  stack of(in, stack_presets::L, placed::layers_apart, true);
  kvevict::budget const ask{.tokens_per_head = stack_presets::budget, .layer_count = stack_presets::L};
  kvevict::host ctx;
  auto const counts = [&](float spread, float change) {
    std::vector<std::int64_t> out;
    auto const keep = plan(ctx, kvevict::presets::cake({.window = 8, .spread_root = spread, .change_root = change}),
                           kvevict::prompt(of.whole(), rows.queries()), ask);
    for (std::int32_t b = 0; b < keep.sequences; b += stack_presets::S) out.push_back(keep(b, 0).size);
    return out;
  };
  // the layer whose attention is nearly even spreads most and changes least
  auto const by_spread = counts(1, 1e6f), by_change = counts(1e6f, 1);
  CHECK(by_spread != by_change);
  auto const widest = std::max_element(by_spread.begin(), by_spread.end()) - by_spread.begin();
  CHECK(widest == std::min_element(by_change.begin(), by_change.end()) - by_change.begin());
}

}  // namespace policy_stack_presets_test
