// SPDX-License-Identifier: Apache-2.0
// Scores of both contexts, from every form of attention.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "simt/same_words.hpp"

namespace simt_test {

/// Scores within 1e-4, relative, by both contexts.
template <class Cache, class Policy, class Evidence>
void scores_alike(Cache& cache, Policy const& policy, Evidence const& evidence, std::int32_t tokens = 20) {
  on_host host;
  std::vector<float> want, got;
  kvevict::budget const ask{.tokens_per_head = tokens};
  scores(host.ctx, policy, evidence(host, cache.view), ask, want);
  device_cache<typename std::decay_t<decltype(cache.view)>::table_entry> there(cache);
  on_gpu gpu{cache.view.sequences()};
  scores(gpu.ctx, policy, evidence(gpu, there.view), ask, got);
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])) /
                                (1e-6 + std::abs(static_cast<double>(want[i]))));
  CHECK(worst < 1e-4);
}

/// The same by each kind of evidence.
template <class Cache, class Policy>
void all_alike(Cache& cache, Policy const& policy, attention const& rows, std::int32_t tokens = 20,
               bool softmax = true) {
  scores_alike(
      cache, policy, [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); }, tokens);
  scores_alike(
      cache, policy,
      [&](auto& on, auto const& view) {
        kvevict::query_rows given = rows.queries();
        given.lse = rows.lse.data(), given.lse_token_stride = rows.lse_stride(), given.lse_head_stride = 1;
        given = on.rows(given);
        return prompt(view, given).with_lse(given.lse, given.lse_token_stride, 1);
      },
      tokens);
  if (softmax)
    scores_alike(
        cache, policy, [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.rows())); }, tokens);
}

}  // namespace simt_test
