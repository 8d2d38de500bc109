// SPDX-License-Identifier: Apache-2.0
// The sum of the directions of a head's tokens, on a device.
#pragma once

#include <kvevict/core/inverse_root.hpp>
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/row_reductions.hpp>
#include <kvevict/cuda/scores/squared_norms.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::direction_sums_tag, device&);

struct inverse_of_square {
  KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t, float& x) const { x = inverse_root(x); }
};
template <class Elements> struct inverse_length {
  Elements of;

  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
    auto const k = of.reader(in);
    float squares = 0;
    for (std::int32_t first = 0; first < k.width(); first += row_chunk) {
      float e[row_chunk];
      k.read(j, first, e);
      for (float const y : e) squares += y * y;
    }
    x = inverse_root(squares);
  }
};
/// x_j/‖x_j‖, where the scores hold 1/‖x_j‖.
template <class Elements> struct direction {
  Elements of;
  score_rows inverse;

  [[gnu::always_inline]] KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first,
                                                             float (&x)[row_chunk]) const {
    of(in, j, first, x);
    float const factor = inverse.score(in, j);
    for (float& e : x) e *= factor;
  }
};

/// The host's (kernels/direction_sums.hpp) to float rounding, the same bits in every layout. Two reads of the elements,
/// three launches and those of row_sums; rows that a rope without amplitude has turned have their lengths in the cache.
template <class Elements>
void kernel(kernels::direction_sums_tag, device& ctx, score_rows const& out, Elements const& of, float* sums) {
  bool stretched = false;
  if constexpr (requires { of.by; }) stretched = of.by.undo != 1;
  if (stretched) {
    kernels::each_token(ctx, out, inverse_length<Elements>{of});
  } else {
    kernels::squared_norms(ctx, of.cache, of.of, out);
    kernels::each_token(ctx, out, inverse_of_square{});
  }
  kernels::row_sums(ctx, out, token_groups{}, static_cast<std::int32_t>(of.of.width()), direction<Elements>{of, out},
                    sums);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
