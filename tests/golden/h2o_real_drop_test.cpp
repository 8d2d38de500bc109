// SPDX-License-Identifier: Apache-2.0
// The authors' decoding loop, replayed with the library: observe, plan, compact.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"

namespace h2o_real_drop_test {

using namespace support;

TEST_CASE("golden: h2o_real_drop, kept tokens and scores after every step") {
  auto const file = golden::load("h2o_real_drop");
  auto const heads = golden::size(file, "heads"), L0 = golden::size(file, "L0"), recent = golden::size(file, "recent"),
             budget = golden::size(file, "hh") + recent;
  auto const policy = kvevict::presets::h2o({.recent = int32(recent)});
  kvevict::budget const ask{.tokens_per_head = int32(budget)};
  layouts::cache_shape shape{
      .lengths = {int32(L0)}, .heads = int32(heads), .head_dim = 8, .spare_tokens = 1, .state_floats = 1};
  for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
    layouts::with_layout(layouts::layout::head_pages, shape, [&](auto& cache) {
      cache.fill([](int, int, int t, int) { return t; }, [](int, int, int t, int) { return t; });
      kvevict::host ctx;
      std::vector<std::int32_t> positions;
      std::size_t next = L0;
      for (auto const& step : golden::member(file, "rows")) {
        auto const weights = golden::as_tensor(step, "attn");  // (1,heads,rows,slots)
        std::vector<float> values = weights.floats();
        auto const rows = weights.dim_from_end(1), slots = weights.dim_from_end(0);
        if (next > L0 || !positions.empty()) {  // one more token has come
          for (auto& n : cache.lengths()) ++n;
          for (std::size_t h = 0; h < heads; ++h)
            kvevict::element<std::int32_t>(cache.view, *cache.view.find(kvevict::role::position), 0, int32(h),
                                           cache.view.length(0, int32(h)) - 1) = int32(next);
          ++next;
          // the fixture's columns are ascending positions; ours lie where they lie
          if (mode == kvevict::compaction::fill_holes)
            for (std::size_t h = 0; h < heads; ++h) {
              std::vector<std::pair<std::int32_t, std::size_t>> order;
              for (std::size_t s = 0; s < slots; ++s)
                order.emplace_back(kvevict::element<std::int32_t>(cache.view, *cache.view.find(kvevict::role::position),
                                                                  0, int32(h), static_cast<std::int64_t>(s)),
                                   s);
              std::sort(order.begin(), order.end());
              std::vector<float> const theirs(values.begin() + static_cast<std::ptrdiff_t>(h * slots),
                                              values.begin() + static_cast<std::ptrdiff_t>((h + 1) * slots));
              for (std::size_t s = 0; s < slots; ++s) values[h * slots + order[s].second] = theirs[s];
            }
        }
        REQUIRE(static_cast<std::size_t>(cache.view.length(0, 0)) == slots);
        positions.clear();
        for (std::size_t i = 0; i < rows; ++i) positions.push_back(int32(next - rows + i));
        std::vector<std::int32_t> const begin{0, int32(rows)};
        kvevict::attention_rows const seen{values.data(),
                                           static_cast<std::int64_t>(slots),
                                           static_cast<std::int64_t>(rows * slots),
                                           int32(heads),
                                           int32(slots),
                                           begin.data(),
                                           positions.data()};
        kvevict::observe(ctx, policy, kvevict::step(cache.view, seen), ask);
        auto const keep = kvevict::plan(ctx, policy, kvevict::remembered(cache.view), ask);
        auto const done = kvevict::compact(ctx, cache.view, keep, mode);
        std::copy(done.lengths().begin(), done.lengths().end(), cache.lengths().begin());
        if (mode == kvevict::compaction::fill_holes && !keep.is_identity())
          cache.view.order = kvevict::row_order::scattered;

        auto const kept = golden::index_rows(step, "kept");
        for (std::size_t h = 0; h < heads; ++h) {
          std::vector<std::pair<std::size_t, double>> now;
          auto const at = cache.read(kvevict::role::position, 0, static_cast<int>(h)),
                     scores = cache.read(kvevict::role::state, 0, static_cast<int>(h)),
                     data = cache.read(kvevict::role::k, 0, static_cast<int>(h));
          for (std::size_t s = 0; s < at.size(); ++s)
            now.emplace_back(static_cast<std::size_t>(at[s]), static_cast<double>(scores[s]));
          std::sort(now.begin(), now.end());
          CAPTURE(h, next);
          REQUIRE(now.size() == kept[h].size());
          for (std::size_t s = 0; s < now.size(); ++s) {
            CHECK(now[s].first == kept[h][s]);
            if (step.contains("hh_score"))
              CHECK(now[s].second == Approx(golden::rows(step, "hh_score")[h][s]).margin(1e-5));
          }
        }
      }
    });
}

}  // namespace h2o_real_drop_test
