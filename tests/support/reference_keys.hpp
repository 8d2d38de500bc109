// SPDX-License-Identifier: Apache-2.0
// Naive scores of policies that look at keys and values alone. All are (H,N).
#pragma once

#include "support/reference_policies.hpp"

namespace reference {

inline double norm(row const& x) {
  double sum = 0;
  for (double const e : x) sum += e * e;
  return std::sqrt(sum);
}
inline row token_row(cube const& x, std::size_t h, std::size_t t) {
  row out;
  for (std::size_t d = 0; d < x.width; ++d) out.push_back(x.at(h, t, d));
  return out;
}

/// KeyDiff: -cos(k_j, mean of the keys' directions).
inline rows key_diversity(layer const& in) {
  rows out;
  for (std::size_t h = 0; h < in.H(); ++h) {
    row mean(in.keys.width, 0.0), scores;
    for (std::size_t t = 0; t < in.N(); ++t) {
      row const k = token_row(in.keys, h, t);
      for (std::size_t d = 0; d < mean.size(); ++d) mean[d] += k[d] / norm(k) / static_cast<double>(in.N());
    }
    for (std::size_t t = 0; t < in.N(); ++t) {
      row const k = token_row(in.keys, h, t);
      double product = 0;
      for (std::size_t d = 0; d < mean.size(); ++d) product += k[d] * mean[d];
      scores.push_back(-product / (norm(k) * norm(mean)));
    }
    out.push_back(scores);
  }
  return out;
}

/// Knorm: -‖k_j‖.
inline rows key_norm(layer const& in) {
  rows out;
  for (std::size_t h = 0; h < in.H(); ++h) {
    out.emplace_back();
    for (std::size_t t = 0; t < in.N(); ++t) out.back().push_back(-norm(token_row(in.keys, h, t)));
  }
  return out;
}

/// The mean of the keys of tokens [first, end).
inline row mean_key(layer const& in, std::size_t h, std::size_t first, std::size_t end) {
  row mean(in.keys.width, 0.0);
  for (std::size_t t = first; t < end; ++t)
    for (std::size_t d = 0; d < mean.size(); ++d) mean[d] += in.keys.at(h, t, d) / static_cast<double>(end - first);
  return mean;
}

/// ManifoldKV: distance from the mean of the window of that many tokens, or of all where it is 0.
inline rows key_distance(layer const& in, std::size_t window) {
  rows out;
  for (std::size_t h = 0; h < in.H(); ++h) {
    row scores;
    for (std::size_t t = 0; t < in.N(); ++t) {
      std::size_t const first = window == 0 ? 0 : t / window * window,
                        end = window == 0 ? in.N() : std::min(in.N(), first + window);
      row const mean = mean_key(in, h, first, end);
      row k = token_row(in.keys, h, t);
      for (std::size_t d = 0; d < k.size(); ++d) k[d] -= mean[d];
      scores.push_back(norm(k));
    }
    out.push_back(scores);
  }
  return out;
}

/// LagKV's score of one tensor's tokens [first, first + lag) against the next lag tokens: softmax of the standard
/// deviations.
inline row lag_shares(cube const& x, std::size_t h, std::size_t first, std::size_t lag) {
  row low(x.width, 1e300), high(x.width, -1e300), out;
  for (std::size_t t = first + lag; t < first + 2 * lag; ++t)
    for (std::size_t d = 0; d < x.width; ++d)
      low[d] = std::min(low[d], x.at(h, t, d)), high[d] = std::max(high[d], x.at(h, t, d));
  double sum = 0;
  for (std::size_t t = first; t < first + lag; ++t) {
    row y = token_row(x, h, t);
    double mean = 0, squares = 0;
    for (std::size_t d = 0; d < y.size(); ++d) {
      y[d] = high[d] == low[d] ? 0.0 : (y[d] - low[d]) / (high[d] - low[d]);
      mean += y[d] / static_cast<double>(y.size());
    }
    for (double const e : y) squares += (e - mean) * (e - mean);
    out.push_back(std::exp(std::sqrt(squares / static_cast<double>(y.size() - 1))));
    sum += out.back();
  }
  for (double& e : out) e /= sum;
  return out;
}

/// LagKV: rank within the partition ÷ lag, by the mean of both tensors' shares; 1 where no whole partition follows.
inline rows relative_spread(layer const& in, std::size_t sinks, std::size_t lag) {
  rows out;
  for (std::size_t h = 0; h < in.H(); ++h) {
    row scores(in.N(), 1.0);
    for (std::size_t first = sinks; first + 2 * lag <= in.N(); first += lag) {
      row const k = lag_shares(in.keys, h, first, lag), v = lag_shares(in.values, h, first, lag);
      for (std::size_t i = 0; i < lag; ++i) {
        std::size_t lower = 0;
        for (std::size_t j = 0; j < lag; ++j) lower += k[j] + v[j] < k[i] + v[i] ? 1 : 0;
        scores[first + i] = static_cast<double>(lower) / static_cast<double>(lag);
      }
    }
    out.push_back(scores);
  }
  return out;
}

/// The best by any scores of all N tokens.
inline index_rows keep_by(rows const& scores, std::size_t N, std::size_t budget, protection const& p) {
  if (N <= budget) return identity(scores.size(), N);
  evictable const e(N, p);
  return keep_uniform(cut(scores, e), budget, e);
}

}  // namespace reference
