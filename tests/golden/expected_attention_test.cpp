// SPDX-License-Identifier: Apache-2.0
// Expected attention against kvpress, with covariance and without.
#include <regex>

#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/expected_attention.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"

namespace expected_attention_test {

using namespace support;

TEST_CASE("golden: scores_kvpress, expected attention") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  attention const all = all_rows(batch_of(in));
  std::regex const name("expected_attention_f(\\d+)_sink(\\d+)_eps([0-9.]+)(_nocov)?");
  int found = 0;
  for (auto const& item : file.items()) {
    std::smatch part;
    if (!std::regex_match(item.key(), part, name)) continue;
    ++found;
    CAPTURE(item.key());
    rows const expected = golden::rows(file, item.key());
    auto const sinks = std::stoi(part[2]);
    auto const spread =
        part[4].matched ? kvevict::score::query_spread::mean : kvevict::score::query_spread::mean_and_covariance;
    auto const policy = kvevict::presets::expected_attention(
        {.positions = std::stoi(part[1]), .of = spread, .sinks = sinks, .epsilon = std::stof(part[3])});
    with_cache(batch_of(in), [&](auto& cache) {
      kvevict::host ctx;
      std::vector<float> values;
      auto view = cache.view;
      view.components[0] = view.components[0].turned(kvevict::rotation::rope);
      kvevict::scores(ctx, policy, kvevict::prompt(view, all.queries()).with_rope({10000}), {.tokens_per_head = 8},
                      values);
      for (std::size_t h = 0; h < in.H(); ++h)
        for (std::size_t j = static_cast<std::size_t>(sinks); j < in.N(); ++j)
          CHECK(static_cast<double>(values[h * in.N() + j]) == Approx(expected[h][j]).epsilon(2e-4).margin(2e-6));
    });
  }
  CHECK(found == 2);
}

}  // namespace expected_attention_test
