// SPDX-License-Identifier: Apache-2.0
// Several scores with shares of one budget, each divided among the heads as Ada-KV does, naively.
#pragma once

#include "support/reference_policies.hpp"

namespace reference {

/// Numerators/denominator, made integers with that sum, largest remainder first; then none above its limit, and what is
/// cut goes one by one, in that order from its beginning, to those with room.
inline counts apportioned(std::vector<std::int64_t> const& numerators, std::int64_t denominator, std::size_t sum,
                          counts const& limits) {
  counts out = largest_remainder(numerators, denominator, sum, counts(limits.size(), sum));
  for (std::size_t h = 0; h < out.size(); ++h) out[h] = std::min(out[h], limits[h]);
  index_row order = first_indices(out.size());
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return numerators[a] % denominator > numerators[b] % denominator; });
  while (total(out) < sum)
    for (std::size_t const h : order)
      if (total(out) < sum && out[h] < limits[h]) ++out[h];
  return out;
}

/// Each turn takes its share of H·base from the candidates that the turns before it left: the best of every head, as
/// many as it has among the best of all, above a floor. scores (turns)(H, up to N, all candidates); permille (turns),
/// 1000 in all.
inline index_rows keep_in_turn(std::vector<rows> const& scores, std::vector<std::int64_t> const& permille,
                               std::size_t budget, evictable const& e, std::int64_t floor) {
  std::size_t const H = scores[0].size(), all = H * e.base(budget);
  auto const n = static_cast<std::int64_t>(H);
  std::vector<std::int64_t> parts;
  for (std::int64_t const p : permille) parts.push_back(static_cast<std::int64_t>(all) * p);
  counts const quotas = largest_remainder(parts, 1000, all, counts(parts.size(), all));
  std::vector<std::vector<bool>> kept(H, std::vector<bool>(e.tokens, true));
  for (auto& k : kept)
    for (std::size_t j = e.begin; j < e.end; ++j) k[j] = false;
  for (std::size_t turn = 0; turn < scores.size(); ++turn) {
    rows left = scores[turn];  // what is kept comes last
    counts room(H, 0);
    for (std::size_t h = 0; h < H; ++h)
      for (std::size_t j = 0; j < left[h].size(); ++j) kept[h][j] ? void(left[h][j] = -1e300) : void(++room[h]);
    std::vector<std::int64_t> numerators;
    auto const quota = static_cast<std::int64_t>(quotas[turn]);
    for (std::size_t const f : global_top_counts(left, quotas[turn]))
      numerators.push_back((1000 - floor) * n * static_cast<std::int64_t>(f) + floor * quota);
    counts const each = apportioned(numerators, 1000 * n, quotas[turn], room);
    for (std::size_t h = 0; h < H; ++h)
      for (std::size_t const j : top_k(left[h], each[h])) kept[h][j] = true;
  }
  index_rows out(H);
  for (std::size_t h = 0; h < H; ++h)
    for (std::size_t j = 0; j < e.tokens; ++j)
      if (kept[h][j]) out[h].push_back(j);
  return out;
}

/// Of every head so many candidates: ⌊half⌋ of them the best by the first scores, the others the best that are left by
/// the second ones.
inline index_rows keep_in_halves(rows const& first, rows second, counts const& each, evictable const& e) {
  index_rows out;
  for (std::size_t h = 0; h < first.size(); ++h) {
    index_row chosen = top_k(first[h], each[h] / 2);
    for (std::size_t const j : chosen) second[h][j] = -1e300;
    for (std::size_t const j : top_k(second[h], each[h] - each[h] / 2)) chosen.push_back(j);
    std::sort(chosen.begin(), chosen.end());
    index_row kept;
    for (std::size_t j = 0; j < e.tokens; ++j)
      if (j < e.begin || j >= e.end || std::binary_search(chosen.begin(), chosen.end(), j - e.begin)) kept.push_back(j);
    out.push_back(kept);
  }
  return out;
}

}  // namespace reference
