// SPDX-License-Identifier: Apache-2.0
// One random layer in a cache, its attention in every form, and its scores against a reference.
#pragma once

#include <kvevict/kernels/host.hpp>
#include <kvevict/policy.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"

namespace support {

struct one_prompt {
  batch in;
  attention all;
  layouts::cache<std::int32_t> cache;
  kvevict::host ctx;
  kvevict::budget budget{.tokens_per_head = 12};

  explicit one_prompt(std::uint64_t seed, shape const& s = {.Hq = 6, .H = 2, .D = 20, .N = {70}, .future = 0},
                      double deviation = 1.5)
      : in(random_batch(seed, s, deviation)),
        all(all_rows(in)),
        cache(layouts::layout::head_pages, cache_shape_of(in)) {
    fill(cache, in);
  }
  auto queries() const { return kvevict::prompt(cache.view, all.queries()); }
  auto with_lse() const { return queries().with_lse(all.lse.data(), all.lse_stride(), 1); }
  auto softmax() const { return kvevict::prompt(cache.view, all.rows()); }

  template <class Policy, class Evidence> std::vector<float> scores(Policy const& p, Evidence const& e) {
    std::vector<float> values;
    kvevict::scores(ctx, p, e, budget, values);
    return values;
  }
  /// Within 3e-5, relative.
  template <class Policy, class Evidence> void check(Policy const& p, Evidence const& e, rows const& expected) {
    auto const values = scores(p, e);
    double worst = 0;
    for (std::size_t h = 0; h < expected.size(); ++h)
      for (std::size_t j = 0; j < expected[h].size(); ++j) {
        double const got = static_cast<double>(values[h * in.N[0] + j]);
        worst = std::max(worst, std::abs(got - expected[h][j]) / (std::abs(expected[h][j]) + 1e-9));
      }
    CHECK(worst < 3e-5);
  }
  /// The same from each form.
  template <class Policy> void check_all(Policy const& p, rows const& expected) {
    check(p, queries(), expected), check(p, with_lse(), expected), check(p, softmax(), expected);
  }
};

}  // namespace support
