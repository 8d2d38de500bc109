// SPDX-License-Identifier: Apache-2.0
// Naive selection: one total order, score descending (-0 == +0), position descending, head ascending.
#pragma once

#include <cstdint>

#include "support/reference_attention.hpp"

namespace reference {

/// Positions of a row from best to worst: score descending, ties to the larger position.
inline index_row ranked(row const& scores) {
  index_row out = first_indices(scores.size());
  std::sort(out.begin(), out.end(),
            [&](std::size_t a, std::size_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a > b; });
  return out;
}

/// The k best positions, ascending; all when k is larger than the row.
inline index_row top_k(row const& scores, std::size_t k) {
  index_row out = ranked(scores);
  out.resize(std::min(k, out.size()));
  std::sort(out.begin(), out.end());
  return out;
}

/// How many of the k best scores of all heads come from every head. Rows may differ in length.
inline std::vector<std::size_t> global_top_counts(rows const& scores, std::size_t k) {
  struct entry {
    double score;
    std::size_t position, head;
  };
  std::vector<entry> all;
  for (std::size_t h = 0; h < scores.size(); ++h)
    for (std::size_t j = 0; j < scores[h].size(); ++j) all.push_back({scores[h][j], j, h});
  std::sort(all.begin(), all.end(), [](entry const& a, entry const& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.position != b.position) return a.position > b.position;
    return a.head < b.head;
  });
  std::vector<std::size_t> counts(scores.size(), 0);
  for (std::size_t n = 0; n < std::min(k, all.size()); ++n) ++counts[all[n].head];
  return counts;
}

/// True when `kept` (distinct positions of the row) is a best set of its own size: no dropped score exceeds a kept one
/// by more than
/// `tolerance`.
inline bool is_top_up_to_ties(row const& scores, index_row const& kept, double tolerance) {
  std::vector<bool> in(scores.size(), false);
  for (std::size_t const j : kept) {
    if (j >= scores.size() || in[j]) return false;
    in[j] = true;
  }
  double worst_kept = std::numeric_limits<double>::infinity();
  double best_dropped = -std::numeric_limits<double>::infinity();
  for (std::size_t j = 0; j < scores.size(); ++j) {
    if (in[j]) worst_kept = std::min(worst_kept, scores[j]);
    if (!in[j]) best_dropped = std::max(best_dropped, scores[j]);
  }
  return best_dropped <= worst_kept + tolerance;
}

/// True when both are sets of k distinct positions that agree except where a score lies within `tolerance` of the
/// boundary, i.e. of the k-th best score.
inline bool equal_up_to_ties(row const& scores, std::size_t k, index_row const& expected, index_row const& obtained,
                             double tolerance) {
  if (expected.size() != k || obtained.size() != k) return false;
  if (k == 0) return true;
  if (k > scores.size()) return false;
  double const boundary = scores[ranked(scores)[k - 1]];
  std::vector<int> seen(scores.size(), 0);
  for (std::size_t const j : expected) {
    if (j >= scores.size() || (seen[j] & 1) != 0) return false;
    seen[j] |= 1;
  }
  for (std::size_t const j : obtained) {
    if (j >= scores.size() || (seen[j] & 2) != 0) return false;
    seen[j] |= 2;
  }
  for (std::size_t j = 0; j < scores.size(); ++j) {
    bool const differs = seen[j] == 1 || seen[j] == 2;
    if (differs && std::abs(scores[j] - boundary) > tolerance) return false;
  }
  return true;
}

/// The same for a selection over all heads at once (ragged rows, k tokens in all).
inline bool equal_up_to_ties(rows const& scores, std::size_t k, index_rows const& expected, index_rows const& obtained,
                             double tolerance) {
  if (expected.size() != scores.size() || obtained.size() != scores.size()) return false;
  row flat;
  index_row flat_expected, flat_obtained;
  for (std::size_t h = 0; h < scores.size(); ++h) {
    for (std::size_t const j : expected[h]) {
      if (j >= scores[h].size()) return false;
      flat_expected.push_back(flat.size() + j);
    }
    for (std::size_t const j : obtained[h]) {
      if (j >= scores[h].size()) return false;
      flat_obtained.push_back(flat.size() + j);
    }
    flat.insert(flat.end(), scores[h].begin(), scores[h].end());
  }
  return equal_up_to_ties(flat, k, flat_expected, flat_obtained, tolerance);
}

}  // namespace reference
