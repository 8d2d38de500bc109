// SPDX-License-Identifier: Apache-2.0
// Layer budgets by entropy: shares from a naive histogram, divided unit by unit, for every context.
#pragma once

#include <cmath>
#include <cstring>

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/layers/entropy.hpp>

#include "support/stack_scores.hpp"

namespace support::layer_entropy {

using stack_scores::question;

/// Scores above 0 whose spread differs from layer to layer.
inline question random_question(std::uint64_t seed) {
  question q = stack_scores::random_question(seed);
  reference::generator random(seed + 77);
  std::size_t const layer = q.m.at(q.m.rows(), 0) / static_cast<std::size_t>(q.m.L);
  for (std::size_t i = 0, power = 0; i < q.scores.size(); ++i) {
    if (i % layer == 0) power = random.below(12);
    q.scores[i] = static_cast<float>(std::pow(random.uniform(0, 1), static_cast<double>(power))) + 1e-9f;
  }
  return q;
}

/// Whether the layers of heads [first, first + heads) exceed their budget.
inline bool is_cut(question const& q, std::size_t s, std::size_t first, std::size_t heads) {
  std::int64_t held = 0, asked = 0;
  for (std::size_t b = s; b < q.budgets.size(); b += static_cast<std::size_t>(q.m.S)) {
    asked += std::int64_t{q.budgets[b]} * static_cast<std::int64_t>(heads);
    for (std::size_t h = first; h < first + heads; ++h) held += q.m.lengths[b * static_cast<std::size_t>(q.m.H) + h];
  }
  return held > asked;
}

/// Evictable scores of layer-and-sequence b; heads that are kept whole have none.
inline std::vector<float> evictable(question const& q, std::size_t b, bool together) {
  std::vector<float> out;
  for (std::size_t h = 0; h < static_cast<std::size_t>(q.m.H); ++h) {
    std::size_t const r = b * static_cast<std::size_t>(q.m.H) + h, s = b % static_cast<std::size_t>(q.m.S);
    if (together ? !is_cut(q, s, 0, static_cast<std::size_t>(q.m.H)) : !is_cut(q, s, h, 1)) continue;
    auto const n = static_cast<std::size_t>(q.m.lengths[r]);
    std::vector<std::size_t> by_age = reference::first_indices(n);
    std::sort(by_age.begin(), by_age.end(), [&](auto a, auto c) { return q.order(r, a) < q.order(r, c); });
    for (std::size_t k = static_cast<std::size_t>(q.sinks); k + static_cast<std::size_t>(q.recent) < n; ++k)
      out.push_back(q.scores[q.m.at(r, by_age[k])]);
  }
  return out;
}

/// The whole number that stands for their entropy.
inline std::int64_t weight(std::vector<float> const& scores) {
  std::map<std::int32_t, std::int64_t> levels;
  for (float const x : scores) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, 4);
    ++levels[1024 + static_cast<std::int32_t>(bits >> 21)];
  }
  return kvevict::score_histogram::entropy_of([&](std::int32_t b) { return levels.count(b) != 0 ? levels[b] : 0; });
}

/// Evictable tokens of every layer that the heads [first, first + heads) of sequence s keep; empty: all is kept.
inline reference::counts shares(question const& q, std::vector<std::int64_t> const& weights, std::size_t s,
                                std::size_t first, std::size_t heads) {
  auto const L = static_cast<std::size_t>(q.m.L), S = static_cast<std::size_t>(q.m.S),
             H = static_cast<std::size_t>(q.m.H);
  std::int64_t asked = 0, sum = 0, quota = 0;
  reference::counts limits;
  for (std::size_t l = 0; l < L; ++l) {
    limits.push_back(0);
    asked += std::int64_t{q.budgets[l * S + s]} * static_cast<std::int64_t>(heads), sum += weights[l * S + s];
    for (std::size_t h = first; h < first + heads; ++h) {
      std::int32_t const n = q.m.lengths[(l * S + s) * H + h];
      limits.back() += static_cast<std::size_t>(std::max(0, n - q.sinks - q.recent));
      quota -= std::min(n, q.sinks + q.recent);
    }
  }
  quota += asked;
  if (!is_cut(q, s, first, heads)) return {};
  std::vector<std::int64_t> numerators;
  for (std::size_t l = 0; l < L; ++l) numerators.push_back((sum == 0 ? 1 : weights[l * S + s]) * quota);
  return stack_scores::settled(numerators, sum == 0 ? q.m.L : sum, quota, limits);
}

/// put(vector) → memory of the context; plan(policy, view, budget) → the host's keep set.
template <class Put, class Plan> void check(std::uint64_t seed, bool adaptive, Put put, Plan plan) {
  question const q = random_question(seed);
  auto view = q.m.view(put);
  if (q.scattered) view = view.with_order(kvevict::row_order::scattered);
  auto const policy =
      kvevict::policy{stack_scores::given{put(q.scores), q.m.room}, q.protects()}.with(kvevict::layers::entropy{});
  kvevict::budget const ask{.layer_count = q.m.L, .per_sequence = put(q.budgets)};
  kvevict::keep_set const keep =
      adaptive ? plan(policy.with(kvevict::heads::adaptive{}), view, ask) : plan(policy, view, ask);
  std::vector<std::int64_t> weights;
  for (std::size_t b = 0; b < q.budgets.size(); ++b) weights.push_back(weight(evictable(q, b, adaptive)));
  CAPTURE(seed, adaptive, q.m.L, q.m.S, q.m.H, q.m.lengths, q.budgets, weights, q.scattered);
  for (std::int32_t s = 0; s < q.m.S; ++s)
    for (std::int32_t h = 0; h < (adaptive ? 1 : q.m.H); ++h) {
      auto const want = shares(q, weights, static_cast<std::size_t>(s), static_cast<std::size_t>(h),
                               adaptive ? static_cast<std::size_t>(q.m.H) : 1);
      for (std::int32_t l = 0; l < q.m.L; ++l) {
        std::int64_t kept = 0, fixed = 0, all = 0;
        for (std::int32_t i = h; i < (adaptive ? q.m.H : h + 1); ++i) {
          std::int32_t const n = q.m.lengths[static_cast<std::size_t>((l * q.m.S + s) * q.m.H + i)];
          kept += keep(l * q.m.S + s, i).size, fixed += std::min(n, q.sinks + q.recent), all += n;
        }
        CAPTURE(s, h, l);
        CHECK(kept == (want.empty() ? all : fixed + static_cast<std::int64_t>(want[static_cast<std::size_t>(l)])));
      }
    }
}

}  // namespace support::layer_entropy
