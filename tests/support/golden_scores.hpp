// SPDX-License-Identifier: Apache-2.0
// Scores and keep sets of one layer, to be compared with those of a fixture.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"

namespace support {

constexpr double float_noise = 4e-6;

/// f(context, view) with the layer in a cache; a rope, where the evidence has one, turned its keys.
template <class F> void with_layer(reference::layer const& in, F f) {
  with_cache(batch_of(in), [&](auto& cache) {
    kvevict::host ctx;
    cache.view.components[0] = cache.view.components[0].turned(kvevict::rotation::rope);
    f(ctx, cache.view);
  });
}

/// The library's scores of one layer, (H,N), tokens that have one.
template <class Policy, class Show>
rows scores_of(reference::layer const& in, Policy const& policy, std::int32_t budget, Show show) {
  rows out;
  with_layer(in, [&](auto& ctx, auto const& view) {
    std::vector<float> values;
    kvevict::scores(ctx, policy, show(view), {.tokens_per_head = budget}, values);
    REQUIRE(values.size() == in.H() * in.N());
    for (std::size_t h = 0; h < in.H(); ++h)
      out.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(h * in.N()),
                       values.begin() + static_cast<std::ptrdiff_t>((h + 1) * in.N()));
  });
  return out;
}

/// What the library keeps of one layer.
template <class Policy, class Show>
index_rows kept_of(reference::layer const& in, Policy const& policy, std::size_t budget, Show show) {
  index_rows out;
  with_layer(in, [&](auto& ctx, auto const& view) {
    out = rows_of_sequence(kvevict::plan(ctx, policy, show(view), {.tokens_per_head = int32(budget)}), 0);
  });
  return out;
}

/// Largest difference over the columns that `expected` has.
inline double worst(rows const& obtained, rows const& expected) {
  REQUIRE(obtained.size() == expected.size());
  double out = 0;
  for (std::size_t h = 0; h < expected.size(); ++h) {
    REQUIRE(expected[h].size() <= obtained[h].size());
    for (std::size_t j = 0; j < expected[h].size(); ++j) out = std::max(out, std::abs(obtained[h][j] - expected[h][j]));
  }
  return out;
}

inline rows first_columns(rows const& in, std::size_t count) {
  rows out;
  for (auto const& r : in) out.emplace_back(r.begin(), r.begin() + static_cast<std::ptrdiff_t>(count));
  return out;
}

/// The fixture's own scores as a score stage: token j of head h has table[h][j], tokens beyond the row are protected.
struct given_scores {
  rows const* table;
  template <class Context, class Evidence> void operator()(Context&, Evidence const&, kvevict::score_rows& out) const {
    for (std::size_t h = 0; h < table->size(); ++h)
      for (std::size_t j = 0; j < (*table)[h].size(); ++j)
        out.scores(static_cast<std::int64_t>(h))[static_cast<std::int64_t>(j)] = static_cast<float>((*table)[h][j]);
  }
};

}  // namespace support
