// SPDX-License-Identifier: Apache-2.0
// Ada-KV's theory: retained mass, the bound ε, the true L1 loss, and the best allocation by brute force.
#pragma once

#include "support/reference_policies.hpp"

namespace reference {

/// W^O as (Hq·D, E): row hq*D+d holds what value channel d of query head hq adds to the E outputs.
struct projection {
  std::size_t inputs = 0, outputs = 0;
  std::vector<double> data;

  [[nodiscard]] double at(std::size_t in, std::size_t out) const { return data.at(in * outputs + out); }
};

/// v_j W^O_h of query head hq, (E).
inline row projected_value(layer const& in, projection const& wo, std::size_t hq, row const& value) {
  row out(wo.outputs, 0.0);
  for (std::size_t d = 0; d < value.size(); ++d)
    for (std::size_t e = 0; e < wo.outputs; ++e) out[e] += value[d] * wo.at(hq * in.values.width + d, e);
  return out;
}

inline row value_row(layer const& in, std::size_t h, std::size_t j) {
  row out;
  for (std::size_t d = 0; d < in.values.width; ++d) out.push_back(in.values.at(h, j, d));
  return out;
}

inline double l1(row const& x) {
  double sum = 0.0;
  for (double const v : x) sum += std::abs(v);
  return sum;
}

/// ‖v_j W^O_h‖₁ averaged over the query heads of the group, (H,N).
inline rows projected_norms(layer const& in, projection const& wo) {
  rows per_head(in.Hq());
  for (std::size_t hq = 0; hq < in.Hq(); ++hq)
    for (std::size_t j = 0; j < in.N(); ++j)
      per_head[hq].push_back(l1(projected_value(in, wo, hq, value_row(in, in.kv_head(hq), j))));
  return reduce_group(per_head, in.H(), reduce::mean);
}

/// C: the largest L1 norm of a projected value over all query heads and tokens.
inline double projection_bound(layer const& in, projection const& wo) {
  double C = 0.0;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq)
    for (std::size_t j = 0; j < in.N(); ++j)
      C = std::max(C, l1(projected_value(in, wo, hq, value_row(in, in.kv_head(hq), j))));
  return C;
}

/// F of every query head at row i: attention mass of the kept tokens (kept is per KV head).
inline row retained_mass(layer const& in, std::size_t i, index_rows const& kept) {
  row out;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    row const a = attention_row(in, hq, i);
    double mass = 0.0;
    for (std::size_t const j : visible(kept[in.kv_head(hq)], i)) mass += a[j];
    out.push_back(mass);
  }
  return out;
}

/// Mass of the kept positions in given rows (H,M), per row.
inline row retained_mass(rows const& weights, index_rows const& kept) {
  row out;
  for (std::size_t h = 0; h < weights.size(); ++h) {
    double mass = 0.0;
    for (std::size_t const j : kept[h]) mass += weights[h].at(j);
    out.push_back(mass);
  }
  return out;
}

/// ε = 2C Σ_h (1 - F_h); F over query heads.
inline double epsilon(double C, row const& F) {
  double sum = 0.0;
  for (double const f : F) sum += 1.0 - f;
  return 2.0 * C * sum;
}

/// y of row i: Σ over query heads of the attention output times W^O, (E).
inline row layer_output(layer const& in, projection const& wo, std::size_t i, index_rows const& kept) {
  row y(wo.outputs, 0.0);
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    row const part = projected_value(in, wo, hq, attention_output(in, hq, i, kept[in.kv_head(hq)]));
    for (std::size_t e = 0; e < y.size(); ++e) y[e] += part[e];
  }
  return y;
}

/// L = ‖y - ŷ‖₁ of row i; the kept tokens are attended with a softmax of their own.
inline double l1_loss(layer const& in, projection const& wo, std::size_t i, index_rows const& kept) {
  row const y = layer_output(in, wo, i, identity(in.H(), in.N()));
  row const y_kept = layer_output(in, wo, i, kept);
  row difference;
  for (std::size_t e = 0; e < y.size(); ++e) difference.push_back(y[e] - y_kept[e]);
  return l1(difference);
}

/// Every way to split `sum` tokens over rows of the given lengths is tried by `visit(counts)`.
template <class Visit> void for_each_allocation(counts const& limits, std::size_t sum, Visit const& visit) {
  counts now(limits.size(), 0);
  auto const fill = [&](auto const& self, std::size_t h, std::size_t left) -> void {
    if (h + 1 == limits.size()) {
      if (left > limits[h]) return;
      now[h] = left;
      visit(static_cast<counts const&>(now));
      return;
    }
    for (std::size_t b = 0; b <= std::min(left, limits[h]); ++b) {
      now[h] = b;
      self(self, h + 1, left - b);
    }
  };
  if (!limits.empty()) fill(fill, 0, sum);
}

/// The largest Σ of kept weights over all allocations with Σ B_h = sum (each head keeps its own best): the minimum of
/// ε.
inline double best_mass(rows const& weights, std::size_t sum) {
  counts limits;
  for (row const& r : weights) limits.push_back(r.size());
  double best = -std::numeric_limits<double>::infinity();
  for_each_allocation(limits, sum, [&](counts const& B) {
    double mass = 0.0;
    for (std::size_t h = 0; h < weights.size(); ++h)
      for (std::size_t const j : top_k(weights[h], B[h])) mass += weights[h][j];
    best = std::max(best, mass);
  });
  return best;
}

}  // namespace reference
