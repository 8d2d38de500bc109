// SPDX-License-Identifier: Apache-2.0
// Keep sets of the presets from dense inputs and a budget. Every result is one ascending row of 0-based positions per
// KV head.
#pragma once

#include "support/reference_ahakv.hpp"
#include "support/reference_budgets.hpp"

namespace reference {

/// Tokens that are always kept: the first max(sinks, prefix) and the last `recent`.
struct protection {
  std::size_t sinks = 0;
  std::size_t recent = 0;
  std::size_t prefix = 0;  // read-only
};

/// The evictable tokens [begin, end) of a row of N.
struct evictable {
  std::size_t begin = 0, end = 0, tokens = 0;

  evictable(std::size_t N, protection const& p)
      : begin{std::min(N, std::max(p.sinks, p.prefix))}, end{begin}, tokens{N} {
    end = std::max(begin, N - std::min(N, p.recent));
  }
  [[nodiscard]] std::size_t size() const { return end - begin; }                 // M
  [[nodiscard]] std::size_t protected_count() const { return tokens - size(); }  // of the union
  [[nodiscard]] std::size_t base(std::size_t budget) const {
    if (budget < protected_count()) throw std::invalid_argument("reference: budget below the protected tokens");
    return budget - protected_count();
  }
};

inline index_rows identity(std::size_t H, std::size_t N) { return index_rows(H, first_indices(N)); }

/// Cuts score rows that start at token 0 to the evictable interval.
inline rows cut(rows const& scores, evictable const& e) {
  rows out;
  for (row const& r : scores)
    out.emplace_back(r.begin() + static_cast<std::ptrdiff_t>(e.begin), r.begin() + static_cast<std::ptrdiff_t>(e.end));
  return out;
}

/// Protected tokens plus the best kept[h] evictable ones. scores (H,M) over [begin,end).
inline index_rows keep_best(rows const& scores, counts const& kept, evictable const& e) {
  index_rows out;
  for (std::size_t h = 0; h < scores.size(); ++h) {
    index_row r = first_indices(e.begin);
    for (std::size_t const j : top_k(scores[h], kept[h])) r.push_back(e.begin + j);
    for (std::size_t j = e.end; j < e.tokens; ++j) r.push_back(j);
    out.push_back(r);
  }
  return out;
}

/// The same number for every head.
inline index_rows keep_uniform(rows const& scores, std::size_t budget, evictable const& e) {
  return keep_best(scores, counts(scores.size(), e.base(budget)), e);
}

inline index_rows keep_ada(rows const& scores, std::size_t budget, evictable const& e, ada_options const& o) {
  return keep_best(scores, ada_budgets(scores, e.base(budget), o), e);
}

/// Sinks and the budget-sinks newest.
inline index_rows keep_streaming(std::size_t H, std::size_t N, std::size_t budget, std::size_t sinks = 4) {
  if (N <= budget) return identity(H, N);
  if (budget < sinks) throw std::invalid_argument("reference: budget below the sinks");
  index_row r = first_indices(sinks);
  for (std::size_t j = N - (budget - sinks); j < N; ++j) r.push_back(j);
  return index_rows(H, r);
}

/// recent = ⌈budget/2⌉, heavy hitters the rest, by column sums over all rows.
inline index_rows keep_h2o(layer const& in, std::size_t budget, protection p = {}, reduce group = reduce::mean) {
  if (in.N() <= budget) return identity(in.H(), in.N());
  if (p.recent == 0) p.recent = (budget + 1) / 2;
  evictable const e(in.N(), p);
  return keep_uniform(cut(column_sums(in, group), e), budget, e);
}

struct snapkv_options {
  window_options score;
  std::size_t sinks = 0, prefix = 0;

  [[nodiscard]] evictable interval(std::size_t N) const { return {N, {sinks, std::min(score.window, N), prefix}}; }
};

inline index_rows keep_snapkv(layer const& in, std::size_t budget, snapkv_options const& o) {
  if (in.N() <= budget) return identity(in.H(), in.N());
  evictable const e = o.interval(in.N());
  return keep_uniform(cut(window_scores(in, o.score), e), budget, e);
}

inline index_rows keep_ada_snapkv(layer const& in, std::size_t budget, snapkv_options const& o,
                                  ada_options const& ada) {
  if (in.N() <= budget) return identity(in.H(), in.N());
  evictable const e = o.interval(in.N());
  return keep_ada(cut(window_scores(in, o.score), e), budget, e, ada);
}

/// Place of a layer in the pyramid.
struct pyramid_options {
  std::size_t index = 0, layers = 1, beta = 20;
  rounding how = rounding::exact;
};

/// The layer's budget per head, protected tokens included; `budget` is the mean over layers.
inline std::size_t pyramid_budget(std::size_t budget, evictable const& e, pyramid_options const& o) {
  counts const all = o.how == rounding::exact ? pyramid_budgets(o.layers, e.base(budget), e.size(), o.beta)
                                              : pyramid_budgets_authors(o.layers, e.base(budget), e.size(), o.beta);
  return e.protected_count() + all.at(o.index);
}

inline index_rows keep_pyramidkv(layer const& in, std::size_t budget, snapkv_options const& o,
                                 pyramid_options const& pyramid) {
  if (in.N() <= budget) return identity(in.H(), in.N());
  return keep_snapkv(in, pyramid_budget(budget, o.interval(in.N()), pyramid), o);
}

inline index_rows keep_ada_pyramidkv(layer const& in, std::size_t budget, snapkv_options const& o,
                                     pyramid_options const& pyramid, ada_options const& ada) {
  if (in.N() <= budget) return identity(in.H(), in.N());
  return keep_ada_snapkv(in, pyramid_budget(budget, o.interval(in.N()), pyramid), o, ada);
}

inline index_rows keep_ahakv(layer const& in, std::size_t budget, ahakv_options const& o, std::size_t sinks = 0,
                             std::size_t prefix = 0) {
  if (in.N() <= budget) return identity(in.H(), in.N());
  evictable const e(in.N(), {sinks, o.recent, prefix});
  return keep_uniform(cut(ahakv_scores(in, budget, o), e), budget, e);
}

/// `in` holds the N prompt tokens and the T future ones; rows of the result are over the N prompt tokens.
inline index_rows keep_oracle(layer const& in, std::size_t N, std::size_t budget, protection const& p,
                              reduce group = reduce::mean) {
  if (N <= budget) return identity(in.H(), N);
  evictable const e(N, p);
  return keep_uniform(cut(oracle_scores(in, N, group), e), budget, e);
}

}  // namespace reference
