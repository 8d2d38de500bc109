// SPDX-License-Identifier: Apache-2.0
// What a keep set is worth, token by token in double: masses, outputs, Ada-KV's bound.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <kvevict/cache/keep_set.hpp>

#include "support/seeing_case.hpp"

namespace reference {

/// ‖y − ŷ‖₁, ‖y − ŷ‖₂², ‖y‖₁, ‖y‖₂², added up.
struct shift {
  double off_l1 = 0, off_squares = 0, l1 = 0, squares = 0;

  void add(std::vector<double> const& y, std::vector<double> const& kept) {
    for (std::size_t i = 0; i < y.size(); ++i) {
      off_l1 += std::abs(y[i] - kept[i]), off_squares += (y[i] - kept[i]) * (y[i] - kept[i]);
      l1 += std::abs(y[i]), squares += y[i] * y[i];
    }
  }
};

struct worth {
  std::vector<double> masses, rows;           // (B·H) Σ of shares, and of how many rows
  std::vector<shift> heads, projected_heads;  // (B·H)
  std::vector<shift> layers, projected;       // (B)
  std::vector<double> bounds;                 // (B)
};

/// W_O as (E, Hq·D), row-major, as PyTorch has it.
struct output_matrix {
  std::size_t outputs = 0, inputs = 0;
  std::vector<float> data;

  /// What value channels x of query head hq become.
  [[nodiscard]] std::vector<double> times(std::size_t hq, std::vector<double> const& x) const {
    std::vector<double> out(outputs, 0.0);
    for (std::size_t e = 0; e < outputs; ++e)
      for (std::size_t d = 0; d < x.size(); ++d) out[e] += x[d] * double{data[e * inputs + hq * x.size() + d]};
    return out;
  }
};
inline output_matrix random_matrix(std::uint64_t seed, std::size_t outputs, std::size_t inputs) {
  generator random(seed);
  return {outputs, inputs, random.normals<float>(outputs * inputs, 1.0f)};
}

/// The softmax of a row after the eviction: kept tokens and the sink share what there is.  → (N)
inline std::vector<double> after(std::vector<double> const& a, std::vector<bool> const& kept, double sink) {
  double left = sink;
  std::vector<double> out(a.size(), 0.0);
  for (std::size_t j = 0; j < a.size(); ++j) left += kept[j] ? a[j] : 0;
  for (std::size_t j = 0; j < a.size(); ++j) out[j] = kept[j] && left > 0 ? a[j] / left : 0;
  return out;
}
inline double total(std::vector<double> const& x) {
  double sum = 0;
  for (double const v : x) sum += v;
  return sum;
}

/// `value(b, h, j, d)`; the last `wanted` rows of every sequence, no more than its shortest row has tokens.
template <class Value>
worth worth_of(seeing_case const& c, kvevict::keep_set const& keep, std::int32_t wanted, output_matrix const& wo,
               Value value) {
  std::int32_t const H = c.a.heads(), G = c.a.shape.group, D = c.a.shape.cache.head_dim;
  worth out;
  for (std::int32_t b = 0; b < c.a.sequences(); ++b) {
    std::int32_t const given = c.a.query_tokens(b);
    std::int32_t W = std::min(wanted, given);
    for (std::int32_t h = 0; h < H; ++h) W = std::min(W, c.a.tokens(b, h));
    shift layer, projected;
    double lost = 0, C = 0;
    for (std::int32_t h = 0; h < H; ++h)
      out.masses.push_back(0), out.rows.push_back(0), out.heads.emplace_back(), out.projected_heads.emplace_back();
    auto const weighted = [&](std::int32_t h, std::vector<double> const& a) {
      std::vector<double> y(static_cast<std::size_t>(D), 0.0);
      for (std::size_t j = 0; j < a.size(); ++j)
        for (std::int32_t d = 0; d < D; ++d)
          y[static_cast<std::size_t>(d)] += a[j] * value(b, h, static_cast<std::int32_t>(j), d);
      return y;
    };
    for (std::int32_t i = given - W; i < given; ++i) {
      std::vector<double> y_all(wo.outputs, 0.0), kept_all(wo.outputs, 0.0);
      for (std::int32_t hq = 0; hq < H * G; ++hq) {
        std::int32_t const h = hq / G;
        auto const r = static_cast<std::size_t>(b * H + h);
        std::vector<double> const a = c.weights(b, hq, i);
        std::vector<bool> kept(a.size(), false);
        for (std::int32_t const j : keep.row(b * H + h)) kept[static_cast<std::size_t>(j)] = true;
        double const sum = total(a), sink = c.sinks.empty() || sum == 0 ? 0 : 1 - sum;
        double stays = 0;
        for (std::size_t j = 0; j < a.size(); ++j) stays += kept[j] ? a[j] : 0;
        if (sum > 0) out.masses[r] += stays / sum, out.rows[r] += 1, lost += sum - stays;
        auto const y = weighted(h, a), y_kept = weighted(h, after(a, kept, sink));
        out.heads[r].add(y, y_kept), layer.add(y, y_kept);
        auto const p = wo.times(static_cast<std::size_t>(hq), y),
                   p_kept = wo.times(static_cast<std::size_t>(hq), y_kept);
        out.projected_heads[r].add(p, p_kept);
        for (std::size_t e = 0; e < wo.outputs; ++e) y_all[e] += p[e], kept_all[e] += p_kept[e];
      }
      projected.add(y_all, kept_all);
    }
    for (std::int32_t hq = 0; hq < H * G; ++hq)
      for (std::int32_t j = 0; j < c.a.tokens(b, hq / G); ++j) {
        std::vector<double> v;
        for (std::int32_t d = 0; d < D; ++d) v.push_back(value(b, hq / G, j, d));
        double sum = 0;
        for (double const x : wo.times(static_cast<std::size_t>(hq), v)) sum += std::abs(x);
        C = std::max(C, sum);
      }
    out.layers.push_back(layer), out.projected.push_back(projected), out.bounds.push_back(2 * C * lost);
  }
  return out;
}

}  // namespace reference
