// SPDX-License-Identifier: Apache-2.0
// Chunks chosen one after the other, naively, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/reference_policies.hpp"

namespace reference {

struct visited_chunk {
  std::size_t first, last;
  double mean, evenness;
};

inline visited_chunk describe_chunk(row const& x, std::size_t first, std::size_t last) {
  visited_chunk out{first, last, 0, 0};
  double least = 0, sum = 0;
  for (std::size_t j = first; j < last; ++j)
    out.mean += x[j] / static_cast<double>(last - first), least = std::min(least, x[j]);
  for (std::size_t j = first; j < last; ++j) sum += x[j] - least;
  if (last - first < 2 || sum == 0) return out;
  for (std::size_t j = first; j < last; ++j)
    if (double const p = (x[j] - least) / sum; p > 0)
      out.evenness -= p * std::log(p) / std::log(static_cast<double>(last - first));
  out.evenness = std::round(out.evenness * 1e7) / 1e7;  // of equal numbers in another order the same
  return out;
}

/// The lower one of an even number.
inline double median_of(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x.empty() ? 0 : x[(x.size() - 1) / 2];
}

/// Which of M scores stay, ascending: chunks from the best on, whole or cut to `peak`, what is left by score.
inline index_row keep_chunks(row const& x, std::size_t quota, std::size_t size, std::size_t peak) {
  std::vector<visited_chunk> chunks;
  std::vector<double> means, evenness;
  for (std::size_t first = 0; first < x.size(); first += size) {
    chunks.push_back(describe_chunk(x, first, std::min(x.size(), first + size)));
    means.push_back(chunks.back().mean), evenness.push_back(chunks.back().evenness);
  }
  double const middle = median_of(means), usual = median_of(evenness);
  std::stable_sort(chunks.begin(), chunks.end(), [](visited_chunk const& a, visited_chunk const& b) {
    return a.mean != b.mean ? a.mean > b.mean : a.first > b.first;
  });
  std::vector<bool> kept(x.size(), false);
  std::size_t left = quota;
  auto const take_best = [&](std::size_t first, std::size_t last, std::size_t count) {
    for (; count > 0; --count, --left) {
      std::size_t best = last;
      for (std::size_t j = first; j < last; ++j)
        if (!kept[j] && (best == last || x[j] >= x[best])) best = j;
      kept[best] = true;
    }
  };
  for (visited_chunk const& c : chunks) {
    std::size_t count = std::min(left, c.last - c.first);
    if (peak != 0 && c.mean >= middle && c.evenness < usual) count = std::min(count, peak);
    take_best(c.first, c.last, count);
  }
  take_best(0, x.size(), left);
  index_row out;
  for (std::size_t j = 0; j < x.size(); ++j)
    if (kept[j]) out.push_back(j);
  return out;
}

/// The same in every row, with protected tokens beside.
inline index_rows keep_chunks(rows const& scores, std::size_t N, std::size_t budget, protection const& p,
                              std::size_t size, std::size_t peak) {
  if (N <= budget) return identity(scores.size(), N);
  evictable const where(N, p);
  index_rows out;
  for (row const& all : cut(scores, where)) {
    index_row kept;
    for (std::size_t j = 0; j < where.begin; ++j) kept.push_back(j);
    for (std::size_t const j : keep_chunks(all, budget - (N - all.size()), size, peak)) kept.push_back(where.begin + j);
    for (std::size_t j = where.end; j < N; ++j) kept.push_back(j);
    out.push_back(kept);
  }
  return out;
}

}  // namespace reference
