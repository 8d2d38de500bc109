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

}  // namespace reference
