// SPDX-License-Identifier: Apache-2.0
// Scores that read no attention.
#pragma once

#include <cstdint>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// No opinion: structure alone decides, then recency (ties go to the more recent token).
struct none {
  static constexpr bool same_for_all_rows = true;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const&, score_rows& out) const {
    kernels::each_token(ctx, out, zero{});
  }

  // What a device kernel calls must be public.
  struct zero {
    constexpr void operator()(row const&, std::int64_t, float& x) const { x = 0; }
  };
};

/// A hash of (seed, sequence, layer, head, position) in [0,1): the same on every machine, thread count and layout.
struct random {
  std::uint64_t seed = 0;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    kernels::each_token(ctx, out, hash<decltype(e.cache)>{e.cache, seed, out.layer});
  }

  template <class View> struct hash {
    View cache;
    std::uint64_t seed;
    std::int32_t layer;

    constexpr void operator()(row const& in, std::int64_t j, float& x) const {
      component const* const positions = cache.find(role::position);
      std::int64_t const p =
          positions == nullptr ? j : element<std::int32_t const>(cache, *positions, in.sequence, in.head, j);
      std::int32_t const l = layer + cache.pages.layer_of(in.sequence), s = cache.pages.sequence_of(in.sequence);
      x = static_cast<float>(mix(mix(mix(mix(seed, s), l), in.head), p) >> 40) * 0x1p-24f;
    }
    /// One step of splitmix64.
    static constexpr std::uint64_t mix(std::uint64_t state, std::int64_t value) {
      std::uint64_t z = state + 0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(value) + 1);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      return z ^ (z >> 31);
    }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
