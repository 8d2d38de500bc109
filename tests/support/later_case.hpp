// SPDX-License-Identifier: Apache-2.0
// A layer whose keys and queries a rope has turned, and what later queries will be like.
#pragma once

#include "support/batch_cache.hpp"
#include "support/reference_later.hpp"

namespace support {

/// One sequence; token t is at position 3 + 5·t. `in` holds queries before rotation, and keys behind it.
struct later_case {
  known_rope rope;
  batch in;
  attention all;  // rotated queries of all tokens
  layouts::cache<std::int32_t> cache;

  explicit later_case(std::uint64_t seed, known_rope const& by,
                      shape const& s = {.Hq = 4, .H = 2, .D = 16, .N = {60}, .future = 0}, double deviation = 0.8)
      : rope(by),
        in(random_batch(seed, s, deviation)),
        all(last_queries(in, s.N[0])),
        cache(layouts::layout::hnd, cache_shape_of(in)) {
    std::size_t const D = s.D;
    reference::layer& l = in.layers[0];
    auto const turned = [&](double const* x, std::size_t t) {
      std::vector<reference::real> const row(x, x + D);
      return by.width == 0 ? row : rope.turned(row, static_cast<reference::real>(position(t)));
    };
    for (std::size_t h = 0; h < s.H; ++h)
      for (std::size_t t = 0; t < s.N[0]; ++t) {
        auto const k = turned(&l.keys.data[(h * s.N[0] + t) * D], t);
        for (std::size_t d = 0; d < D; ++d) l.keys.at(h, t, d) = static_cast<float>(k[d]);
      }
    for (std::size_t t = 0; t < s.N[0]; ++t) {
      all.positions[t] = position(t);
      for (std::size_t hq = 0; hq < s.Hq; ++hq) {
        auto const q = turned(&l.queries.data[(hq * s.N[0] + t) * D], t);
        for (std::size_t d = 0; d < D; ++d) all.q[(t * s.Hq + hq) * D + d] = static_cast<float>(q[d]);
      }
    }
    fill(cache, in);
    cache.fill(kvevict::role::position, [](int, int, int t, int) { return 3 + 5 * t; });
    auto& k = cache.view.components[0];
    k = k.turned(by.width == 0 ? kvevict::rotation::none : kvevict::rotation::rope);
  }
  static std::int32_t position(std::size_t t) { return 3 + 5 * int32(t); }

  /// Of each query head before rotation, of the last `rows` tokens' queries but those of positions below `left_out`.
  std::vector<reference::moments> moments(std::size_t rows, std::int32_t left_out) const {
    std::vector<reference::moments> out;
    std::size_t const N = in.N[0];
    for (std::size_t hq = 0; hq < in.Hq; ++hq) {
      reference::rows q;
      for (std::size_t t = N - rows; t < N; ++t)
        if (position(t) >= left_out) q.push_back(reference::token_row(in.layers[0].queries, hq, t));
      out.push_back(reference::moments_of(q));
    }
    return out;
  }
  /// Those of the `positions` positions behind the newest token.
  std::vector<reference::moments> later(std::vector<reference::moments> const& of, int positions) const {
    if (rope.width == 0) return of;
    auto const R = reference::mean_rotation(rope, in.D, position(in.N[0] - 1) + 1, positions);
    std::vector<reference::moments> out;
    for (auto const& m : of) out.push_back(reference::turned(m, R));
    return out;
  }
};

/// Moments as an engine would keep them.
struct kept_moments {
  std::vector<float> mean, covariance;
  std::int32_t heads, D;

  explicit kept_moments(std::vector<reference::moments> const& of)
      : heads(int32(of.size())), D(int32(of.at(0).mean.size())) {
    for (auto const& m : of) {
      for (double const x : m.mean) mean.push_back(static_cast<float>(x));
      for (std::size_t a = 0; a < m.covariance.size(); ++a)
        for (std::size_t b = 0; b < m.covariance.size(); ++b)  // what is above the diagonal is not read
          covariance.push_back(b > a ? 1e30f : static_cast<float>(m.covariance[a][b]));
    }
  }
  kvevict::query_moments operator()() const { return at(mean.data(), covariance.data()); }
  kvevict::query_moments at(float const* means, float const* covariances) const {
    return {means, covariances, heads, D, 0, 0, 0};
  }
};

}  // namespace support
