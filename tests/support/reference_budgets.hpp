// SPDX-License-Identifier: Apache-2.0
// Naive budgets of heads (Ada-KV, kvpress) and of layers (PyramidKV), exact and as the authors round.
#pragma once

#include <numeric>

#include "support/reference_select.hpp"

namespace reference {

using counts = std::vector<std::size_t>;

inline std::size_t total(counts const& x) { return std::accumulate(x.begin(), x.end(), std::size_t{0}); }

/// Shares numerators[h]/denominator, made integers with the given sum: floors, then one more token to each head in the
/// order (remainder descending, head ascending) until the sum is reached. No head passes limits[h]: a floor is cut to
/// its limit first, a full head is passed over, and the order is gone through cyclically, one token at a time, until
/// nothing is left or all heads are full. So what is clipped off one head goes to the heads that still have room,
/// largest remainder first.
inline counts largest_remainder(std::vector<std::int64_t> const& numerators, std::int64_t denominator, std::size_t sum,
                                counts const& limits) {
  counts out;
  std::vector<std::int64_t> remainders;
  for (std::size_t h = 0; h < numerators.size(); ++h) {
    out.push_back(std::min(limits[h], static_cast<std::size_t>(numerators[h] / denominator)));
    remainders.push_back(numerators[h] % denominator);
  }
  index_row order = first_indices(out.size());
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  bool progress = true;
  while (total(out) < sum && progress) {
    progress = false;
    for (std::size_t const h : order)
      if (total(out) < sum && out[h] < limits[h]) {
        ++out[h];
        progress = true;
      }
  }
  return out;
}

enum class rounding { exact, authors };

struct ada_options {
  std::int64_t floor_permille = 200;  // alpha*1000
  rounding how = rounding::exact;
  bool normalize = false;  // authors' option: for allocation only, scores times (Σ top-base)/(Σ all) per head
};

/// Scores multiplied per head by (Σ of its `base` best)/(Σ of all); a head whose sum is 0 is left as it is.
inline rows normalized(rows const& scores, std::size_t base) {
  rows out = scores;
  for (row& r : out) {
    double top = 0.0;
    double all = 0.0;
    for (std::size_t const j : top_k(r, base)) top += r[j];
    for (double const x : r) all += x;
    if (all != 0.0)
      for (double& x : r) x *= top / all;
  }
  return out;
}

/// Evictable tokens that every head keeps, protected tokens not included. scores (H,M).
///
///   f_h = counts of the global top-(H·base);  B_h = (1-α)·f_h + α·base
///
/// exact: integers over 1000, largest remainder, clipped to M with redistribution: Σ = H·base (base ≤ M).
/// authors: round_half_even((1-α)·f_h + ⌊α·base⌋) in double, clipped to M; the sum drifts.
inline counts ada_budgets(rows const& scores, std::size_t base, ada_options const& o) {
  std::size_t const H = scores.size();
  counts limits;
  for (row const& r : scores) limits.push_back(r.size());
  counts const f = global_top_counts(o.normalize ? normalized(scores, base) : scores, H * base);
  if (o.how == rounding::exact) {
    std::vector<std::int64_t> numerators;
    for (std::size_t const x : f)
      numerators.push_back((1000 - o.floor_permille) * static_cast<std::int64_t>(x) +
                           o.floor_permille * static_cast<std::int64_t>(base));
    return largest_remainder(numerators, 1000, std::min(H * base, total(limits)), limits);
  }
  double const alpha = static_cast<double>(o.floor_permille) / 1000.0;
  std::int64_t const floor_tokens = o.floor_permille * static_cast<std::int64_t>(base) / 1000;
  counts out;
  for (std::size_t h = 0; h < H; ++h) {
    double const exact = (1.0 - alpha) * static_cast<double>(f[h]) + static_cast<double>(floor_tokens);
    out.push_back(std::min(limits[h], static_cast<std::size_t>(std::nearbyint(exact))));  // default mode: half to even
  }
  return out;
}

/// kvpress' rule: the top-⌊α·n⌋ of every head are forced in, then the global best of the rest until H·n tokens are
/// kept. scores (H,N) over the whole row: nothing is protected, the window is inside. Returns the kept positions.
inline index_rows forced_floor(rows const& scores, std::size_t n, double alpha) {
  auto const floor_tokens = static_cast<std::size_t>(static_cast<double>(n) * alpha);
  rows forced = scores;
  for (row& r : forced)
    for (std::size_t const j : top_k(r, floor_tokens)) r[j] = std::numeric_limits<double>::infinity();
  counts const f = global_top_counts(forced, scores.size() * n);
  index_rows out;
  for (std::size_t h = 0; h < scores.size(); ++h) out.push_back(top_k(forced[h], f[h]));
  return out;
}

/// kvpress' token count for a compression ratio: truncation of L·(1-ratio) in double, so (40, 0.9) is 3, not 4.
inline std::size_t kvpress_count(std::size_t L, double ratio) {
  return static_cast<std::size_t>(static_cast<double>(L) * (1.0 - ratio));
}

/// PyramidKV: evictable tokens per head of every layer (protected tokens come on top). M evictable tokens, base =
/// budget - protected. L layers, exact: hi and lo as numerators over β, the line as numerators over β·(L-1), largest
/// remainder, lower layer first; Σ = L·base.
inline counts pyramid_budgets(std::size_t L, std::size_t base, std::size_t M, std::size_t beta = 20) {
  if (base >= M) return counts(L, M);
  if (L == 1) return {base};
  auto const b = static_cast<std::int64_t>(beta);
  auto const B = static_cast<std::int64_t>(base);
  std::int64_t low = B;                 // base/β, times β
  std::int64_t high = 2 * B * b - low;  // times β
  if (high > static_cast<std::int64_t>(M) * b) {
    high = static_cast<std::int64_t>(M) * b;
    low = 2 * B * b - high;
  }
  std::vector<std::int64_t> numerators;
  for (std::size_t l = 0; l < L; ++l)
    numerators.push_back(high * static_cast<std::int64_t>(L - 1) - (high - low) * static_cast<std::int64_t>(l));
  return largest_remainder(numerators, b * static_cast<std::int64_t>(L - 1), L * base, counts(L, M));
}

/// The official code's integer divisions; the sum drifts.
inline counts pyramid_budgets_authors(std::size_t L, std::size_t base, std::size_t M, std::size_t beta = 20) {
  if (base >= M) return counts(L, M);
  if (L == 1) return {base};
  std::size_t low = base / beta;
  std::size_t high = 2 * base - low;
  if (high >= M) {
    high = M;
    low = 2 * base - high;
  }
  std::size_t const step = (high - low) / (L - 1);
  counts out;
  for (std::size_t l = 0; l < L; ++l) out.push_back(high - l * step);
  return out;
}

}  // namespace reference
