// SPDX-License-Identifier: Apache-2.0
// Naive scores of what window rows' weights say together with values. All are (H,N-W) unless said otherwise.
#pragma once

#include "support/reference_keys.hpp"

namespace reference {

/// Output of query row i of a head over the listed tokens.
inline row output_over(layer const& in, std::size_t hq, std::size_t i, index_row const& keys) {
  row const a = attention_row(in, hq, i, keys);
  row out(in.values.width, 0.0);
  for (std::size_t n = 0; n < keys.size(); ++n)
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += a[n] * in.values.at(in.kv_head(hq), keys[n], d);
  return out;
}
inline double squared_distance(row const& a, row const& b) {
  double sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) sum += (a[d] - b[d]) * (a[d] - b[d]);
  return sum;
}

/// DropKV by brute force: every evictable token is taken out in turn, the softmax of the others worked out anew, and
/// the squared change of the output added up over the window; per query head.
inline rows leave_one_out(layer const& in, std::size_t W) {
  rows out;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    row scores(in.N() - W, 0.0);
    for (std::size_t i = in.N() - W; i < in.N(); ++i) {
      row const whole = output_over(in, hq, i, first_indices(i + 1));
      for (std::size_t j = 0; j < scores.size(); ++j) {
        index_row others = first_indices(i + 1);
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(j));
        scores[j] += squared_distance(whole, output_over(in, hq, i, others));
      }
    }
    out.push_back(scores);
  }
  return out;
}

/// OBCache's terms: Σ p²‖v‖², and with the key's Σ (p·z)²‖v − o‖² more; per query head.
inline rows removal_terms(layer const& in, std::size_t W, bool keys) {
  rows out;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    row scores(in.N() - W, 0.0);
    for (std::size_t i = in.N() - W; i < in.N(); ++i) {
      row const a = attention_row(in, hq, i), o = output_over(in, hq, i, first_indices(i + 1));
      for (std::size_t j = 0; j < scores.size(); ++j) {
        row const v = token_row(in.values, in.kv_head(hq), j);
        scores[j] += a[j] * a[j] * norm(v) * norm(v);
        double const z = logit(in, hq, i, j);
        if (keys) scores[j] += a[j] * a[j] * z * z * squared_distance(v, o);
      }
    }
    out.push_back(scores);
  }
  return out;
}

/// Mean over the group, then average-pooled.
inline rows of_group_pooled(rows const& per_query_head, std::size_t H, std::size_t k, reduce group = reduce::mean) {
  return pooled(reduce_group(per_query_head, H, group), k, pool::average);
}
inline rows output_change(layer const& in, std::size_t W, std::size_t k) {
  return of_group_pooled(leave_one_out(in, W), in.H(), k);
}

/// Attention of window row i to the tokens before the window, average-pooled, scaled to the sum that it had.
inline row pooled_row(layer const& in, std::size_t hq, std::size_t i, std::size_t W, std::size_t k) {
  row const all = attention_row(in, hq, i), a(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(in.N() - W));
  row out = pooled(a, k, pool::average);
  double before = 0, after = 0;
  for (std::size_t j = 0; j < a.size(); ++j) before += a[j], after += out[j];
  for (double& x : out) x *= before / after;
  return out;
}

/// DefensiveKV without value norms: the largest of all window rows and query heads of the group, not below its mean
/// over the tokens before the recent ones.
inline rows largest_attention(layer const& in, std::size_t W, std::size_t k, std::size_t recent) {
  rows out(in.H(), row(in.N() - W, 0.0));
  for (std::size_t hq = 0; hq < in.Hq(); ++hq)
    for (std::size_t i = in.N() - W; i < in.N(); ++i) {
      row const a = pooled_row(in, hq, i, W, k);
      row& most = out[in.kv_head(hq)];
      for (std::size_t j = 0; j < a.size(); ++j) most[j] = std::max(most[j], a[j]);
    }
  for (row& r : out) {
    double mean = 0;
    std::size_t const before = in.N() - std::min(in.N(), recent);
    for (std::size_t j = 0; j < std::min(before, r.size()); ++j) mean += r[j] / static_cast<double>(before);
    for (double& x : r) x = std::max(x, mean);
  }
  return out;
}

/// CAKE's tokens: mean and gamma times variance over the window rows.
inline rows varying_attention(layer const& in, std::size_t W, std::size_t k, double gamma) {
  rows out;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    rows weights;
    for (std::size_t i = in.N() - W; i < in.N(); ++i) weights.push_back(attention_row(in, hq, i));
    row scores;
    for (std::size_t j = 0; j < in.N() - W; ++j) {
      double mean = 0, variance = 0;
      for (row const& a : weights) mean += a[j] / static_cast<double>(W);
      for (row const& a : weights) variance += (a[j] - mean) * (a[j] - mean) / static_cast<double>(W);
      scores.push_back(mean + gamma * variance);
    }
    out.push_back(scores);
  }
  return of_group_pooled(out, in.H(), k);
}

/// LAVa's tokens: scores times the largest L1 norm of a value of the head.
inline rows bounded_by_values(layer const& in, rows scores) {
  for (std::size_t h = 0; h < in.H(); ++h) {
    double largest = 0;
    for (std::size_t t = 0; t < in.N(); ++t) {
      double sum = 0;
      for (std::size_t d = 0; d < in.values.width; ++d) sum += std::abs(in.values.at(h, t, d));
      largest = std::max(largest, sum);
    }
    for (double& x : scores[h]) x *= largest;
  }
  return scores;
}

/// R-KV by all N×N cosines: scores times lambda, less softmax of the mean cosine with the other keys.
inline rows less_redundant(layer const& in, rows scores, double lambda) {
  for (std::size_t h = 0; h < in.H(); ++h) {
    row redundancy(in.N(), 0.0);
    for (std::size_t i = 0; i < in.N(); ++i)
      for (std::size_t j = 0; j < in.N(); ++j) {
        row const a = token_row(in.keys, h, i), b = token_row(in.keys, h, j);
        double product = 0;
        for (std::size_t d = 0; d < a.size(); ++d) product += a[d] * b[d];
        if (i != j) redundancy[j] += product / (norm(a) * norm(b)) / static_cast<double>(in.N());
      }
    row const share = softmax(redundancy);
    for (std::size_t j = 0; j < scores[h].size(); ++j) scores[h][j] = lambda * scores[h][j] - (1 - lambda) * share[j];
  }
  return scores;
}

}  // namespace reference
