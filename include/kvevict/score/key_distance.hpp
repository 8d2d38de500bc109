// SPDX-License-Identifier: Apache-2.0
// How far a key lies from the mean of the keys around it.
#pragma once

#include <cmath>

#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/score/keys.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Distance of a token's key from the mean of the keys of its head: keys unlike the others stay, long ones, too, which
/// a cosine does not see.
///
///   s(h,j) = ‖k_j − mean_n k_n‖₂        over all N tokens of the head, or over the `window` tokens that j is among
///
/// Paper    ManifoldKV, ICML 2026, arXiv:2602.08343; windows of 4 096 tokens for contexts beyond 32 k.   Differs:
///          nothing for cached, rotated keys; ours for unrotated ones (see key_diversity).
/// Shapes   keys (H,N,D), floats or quantised → (H,N) float, 0 or more. Needs no queries; rows may be scattered where
///          the mean is over all tokens.
/// Cost     two reads of K, of unrotated keys with one cosine and sine an element; scratch D floats a row and window.
/// Errors   contract_violation if the cache has no keys that can be read, a squared distance is not finite, the window
///          is negative, or it is not 0 and rows are scattered; of unrotated keys: see before_rotation.
struct key_distance {
  std::int32_t window = 0;  // tokens of a mean; 0: all
  keys of = keys::cached;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    expect_no_padding("key_distance", e);
    KVEVICT_EXPECTS(window >= 0, "key_distance: means of ", window,
                    " tokens; give the tokens of a window, or 0 for one mean of all");
    KVEVICT_EXPECTS(window == 0 || out.positions == nullptr,
                    "key_distance: the rows are scattered, so a window in memory is none of the text; use stable "
                    "compaction (compaction::stable) or one mean of all tokens");
    token_groups const windows{0, window};
    with_keys("key_distance", of, ctx, e, [&](auto const& k) {
      auto const D = static_cast<std::int32_t>(k.of.width());
      frame scratch(ctx.scratch());
      float* const sums = scratch.template allocate<float>(out.count() * windows.count(out.most_tokens) * D);
      kernels::row_sums(ctx, out, windows, D, k, sums);
      kernels::each_token(ctx, out, distance<std::decay_t<decltype(k)>>{k, out, windows, sums, D});
    });
  }

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    std::int64_t const means = token_groups{0, window}.count(s.tokens);
    return scratch_step(s.rows() * means * s.head_dim * 4) + keys_bytes(of, s);
  }

  template <class Keys> struct distance {
    Keys keys;
    score_rows rows;
    token_groups windows;
    float const* sums;  // (B·H, G, D)
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      std::int64_t const g = windows.group_of(j);
      float const share = 1 / static_cast<float>(windows.end(g, in.tokens) - windows.begin(g));
      float const* const sum = sums + windows.place(rows, in, j) * width;
      float squares[row_chunk] = {};
      for (std::int32_t first = 0; first < width; first += row_chunk) {
        float e[row_chunk];
        keys(in, j, first, e);
        for (std::int32_t i = 0; i < row_chunk && first + i < width; ++i) {
          float const y = e[i] - sum[first + i] * share;
          squares[i] += y * y;
        }
      }
      x = 0;
      for (float const s : squares) x += s;
      x = ::sqrtf(x);
    }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
