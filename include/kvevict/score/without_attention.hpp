// SPDX-License-Identifier: Apache-2.0
// Scores that read no attention.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace v0 {
namespace score {

/// No opinion: structure alone decides, then recency (ties go to the more recent token).
struct none {
  template <class Context, class Evidence> void operator()(Context&, Evidence const&, score_rows& out) const {
    for (std::int64_t r = 0; r < out.count(); ++r)
      if (out.rows[r].active) std::fill(out.scores(r).begin(), out.scores(r).end(), 0.0f);
  }
};

/// A hash of (seed, sequence, layer, head, position) in [0,1): the same on every machine, thread count and layout.
struct random {
  std::uint64_t seed = 0;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    auto const* positions = e.cache.find(role::position);
    ctx.for_each(out.count(), [&](std::int64_t r, std::int32_t) {
      row const& in = out.rows[r];
      if (!in.active) return;
      std::uint64_t const key = mix(mix(mix(seed, in.sequence), out.layer), in.head);
      for (std::int32_t j = 0; j < in.tokens; ++j) {
        std::int32_t const p = positions == nullptr ? j : element<std::int32_t const>(e.cache, *positions, in.sequence, in.head, j);
        out.scores(r)[j] = static_cast<float>(mix(key, p) >> 40) * 0x1p-24f;
      }
    }, 4 * out.begin[out.count()]);
  }

 private:
  /// One step of splitmix64.
  static std::uint64_t mix(std::uint64_t state, std::int64_t value) {
    std::uint64_t x = state + 0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(value) + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
};

}  // namespace score
}  // namespace v0
}  // namespace kvevict
