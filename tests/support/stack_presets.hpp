// SPDX-License-Identifier: Apache-2.0
// Presets whose layers share their budget, on stacks of layers that differ, and what each row must keep, naively.
#pragma once

#include <kvevict/presets/cake.hpp>
#include <kvevict/presets/distinct_and_attended.hpp>
#include <kvevict/presets/lava.hpp>
#include <kvevict/presets/layer_defensivekv.hpp>

#include "support/layer_entropy.hpp"
#include "support/reference_outputs.hpp"
#include "support/reference_shares.hpp"
#include "support/stack.hpp"

namespace support::stack_presets {

inline constexpr std::int32_t L = 4, S = 3, W = 8, pool = 5, floor = 200, budget = 21;

/// Queries of every layer are as large as no other's, so that attention spreads more, or less. The last sequence fits.
inline batch random_stack(std::uint64_t seed) {
  std::vector<std::size_t> N;
  for (std::int32_t l = 0; l < L; ++l) N.insert(N.end(), {60, 37, 20});
  batch in = random_batch(seed, {.Hq = 4, .H = 2, .D = 8, .N = N, .future = 0}, 1.2);
  reference::generator random(seed + 1);
  for (std::size_t i = 0; i < in.B(); i += S) {
    double const scale = random.uniform(0.1, 4);
    for (std::size_t s = 0; s < S; ++s)
      for (double& x : in.layers[i + s].queries.data) x = static_cast<double>(static_cast<float>(x * scale));
  }
  return in;
}

using layers = std::vector<reference::layer>;

/// The kept counts of rows that share `total` evictable tokens: of the best of all, above a floor. scores (rows,M).
inline reference::counts floored(rows const& scores, std::size_t total) {
  std::vector<std::int64_t> numerators;
  auto const n = static_cast<std::int64_t>(scores.size());
  for (std::size_t const f : reference::global_top_counts(scores, total))
    numerators.push_back((1000 - floor) * n * static_cast<std::int64_t>(f) + floor * static_cast<std::int64_t>(total));
  return reference::apportioned(numerators, 1000 * n, total, reference::counts(scores.size(), scores[0].size()));
}

/// Evictable tokens of each layer, by weights; `heads` rows of it share what it gets.
inline reference::counts of_layers(std::vector<std::int64_t> const& weights, std::size_t heads, std::size_t evictable,
                                   std::size_t base) {
  std::int64_t const quota = static_cast<std::int64_t>(weights.size() * heads * base);
  std::vector<std::int64_t> numerators;
  std::int64_t sum = 0;
  for (std::int64_t const w : weights) sum += w, numerators.push_back(w * quota);
  return stack_scores::settled(numerators, sum, quota, reference::counts(weights.size(), heads * evictable));
}

/// Entropy of the window rows' attention to the tokens before them, times its variance over those rows.
inline double preference(reference::layer const& in) {
  double spread = 0, change = 0;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    rows weights;
    for (std::size_t i = in.N() - W; i < in.N(); ++i) weights.push_back(reference::attention_row(in, hq, i));
    for (std::size_t j = 0; j < in.N() - W; ++j) {
      double mean = 0;
      for (auto const& a : weights) mean += a[j] / W, spread -= a[j] * std::log(a[j]);
      for (auto const& a : weights) change += (a[j] - mean) * (a[j] - mean) / W;
    }
  }
  return spread * change;
}

/// Rows (L)(H) of one sequence that is cut.
using answer_of_stack = std::vector<index_rows>;

inline answer_of_stack cake(layers const& of) {
  std::vector<double> preferences;
  for (auto const& l : of) preferences.push_back(preference(l));
  double const most = *std::max_element(preferences.begin(), preferences.end());
  std::vector<std::int64_t> weights;
  for (double const p : preferences) weights.push_back(std::llround(p / most * 0x1p20));
  std::size_t const N = of[0].N(), H = of[0].H();
  auto const each = of_layers(weights, 1, N - W, budget - W);
  answer_of_stack out;
  for (std::size_t l = 0; l < of.size(); ++l)
    out.push_back(reference::keep_best(reference::varying_attention(of[l], W, pool, 200), reference::counts(H, each[l]),
                                       {N, {0, W, 0}}));
  return out;
}

inline answer_of_stack lava(layers const& of) {
  std::size_t const N = of[0].N(), H = of[0].H();
  std::vector<rows> scores;
  std::vector<std::int64_t> weights;
  for (auto const& l : of) {
    scores.push_back(reference::bounded_by_values(
        l, reference::window_scores(l, {W, pool, reference::pool::max, reference::reduce::mean, false})));
    std::vector<float> all;
    for (auto const& r : scores.back())
      for (double const x : r) all.push_back(static_cast<float>(x));
    weights.push_back(layer_entropy::weight(all));
  }
  auto const each = of_layers(weights, H, N - W, budget - W);
  answer_of_stack out;
  for (std::size_t l = 0; l < of.size(); ++l)
    out.push_back(reference::keep_best(scores[l], floored(scores[l], each[l]), {N, {0, W, 0}}));
  return out;
}

inline answer_of_stack in_layers(index_rows const& all, std::size_t H) {
  answer_of_stack out;
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (r % H == 0) out.emplace_back();
    out.back().push_back(all[r]);
  }
  return out;
}

inline answer_of_stack layer_defensivekv(layers const& of) {
  rows all;
  for (auto const& l : of)
    for (auto const& r : reference::largest_attention(l, W, pool, W)) all.push_back(r);
  auto const counts = floored(all, all.size() * (budget - W));
  return in_layers(reference::keep_best(all, counts, {of[0].N(), {0, W, 0}}), of[0].H());
}

inline answer_of_stack distinct(layers const& of) {
  rows keys, attended;
  for (auto const& l : of) {
    for (auto const& r : reference::key_diversity(l)) keys.push_back(r);
    for (auto const& r : reference::largest_attention(l, 2, 1, (budget + 3) / 4)) attended.push_back(r);
  }
  return in_layers(
      reference::keep_in_turn({keys, attended}, {700, 300}, budget, {of[0].N(), {2, (budget + 3) / 4, 0}}, floor),
      of[0].H());
}

/// f(name, policy, what it must keep of a sequence that is cut).
template <class F> void for_each(F f) {
  namespace p = kvevict::presets;
  f("cake", p::cake({.window = W, .pool = pool}), cake);
  f("lava", p::lava({.window = W, .pool = pool, .floor_permille = floor}), lava);
  f("layer_defensivekv", p::layer_defensivekv({.window = W, .pool = pool, .floor_permille = floor}), layer_defensivekv);
  f("distinct_and_attended",
    p::distinct_and_attended({.window = 2,
                              .distinct_permille = 700,
                              .sinks = 2,
                              .recent_permille = 250,
                              .floor_permille = floor,
                              .keys = kvevict::score::keys::cached}),
    distinct);
}

/// Every row is what it must be. Returns whether layers keep different numbers.
inline bool check(batch const& in, kvevict::keep_set const& keep, answer_of_stack (*expected)(layers const&)) {
  bool differ = false;
  for (std::size_t s = 0; s < S; ++s) {
    layers of;
    for (std::size_t l = 0; l < L; ++l) of.push_back(in.layers[l * S + s]);
    std::size_t const N = of[0].N();
    auto const want = N <= budget ? answer_of_stack(L, reference::identity(in.H, N)) : expected(of);
    std::set<std::size_t> counts;
    for (std::size_t l = 0; l < L; ++l) {
      CAPTURE(s, l);
      auto const got = rows_of_sequence(keep, l * S + s);
      CHECK(got == want[l]);
      counts.insert(got[0].size() + got[1].size());
    }
    differ = differ || counts.size() > 1;
  }
  return differ;
}

}  // namespace support::stack_presets
