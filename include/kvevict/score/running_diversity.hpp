// SPDX-License-Identifier: Apache-2.0
// How far a key points away from all keys that have come so far, while decoding.
#pragma once

#include <algorithm>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/padding.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/score/key_diversity.hpp>
#include <kvevict/score/keys.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// key_diversity while decoding, in O(D) a step: minus the cosine between a key and the mean direction of all keys that
/// have come so far, evicted ones, too, as that mean was when the token came.
///
///   S_t = Σ_{i ≤ t} k_i/‖k_i‖;   s(h,j) = −cos( k_j, S_t )     t: the last token of the rows that brought j,
///   or, with `refresh`, that took the sequence over the last multiple of so many positions: then all are scored anew
///
/// Of a prompt that is observed whole the scores are key_diversity's. Later ones differ, for the mean goes on without
/// them and keeps what was evicted; it changes by 1/t a step. `sums` is the engine's, beside the state in the cache:
/// observe() starts a sequence at zero where all its tokens are new. Where a sequence begins behind a read-only prefix
/// put that one's sums there, and move them when sequences change places.
/// Evidence random keys (D 64, a common centre; 400 of 1 000 kept, the newest quarter, evicted every 16 steps): of what
///          one plan over all keys would choose, after 250 / 1 000 / 4 000 steps .997 / .995 / .993 are there with
///          refresh 0, 1.00 / .999 / .999 with 64; where the centre moves .98 / .90 / .85 and .99 / .99 / .98. Exact
///          scores over the cache's own tokens in every plan: .98 / .98 / .97 and .96 / .93 / .94.
/// Ours     for `distinct_keys(…).with(score::running_diversity{sums})`, then observe, remembered(cache), replace.
/// Shapes   sums (B·H, D), scores one float a slot in the cache's role::state component → (H,N) in [−1,1]. Evidence of
///          observe: step(cache, queries), of whose queries only the places are read, .with_rope for unrotated keys.
/// Cost     a step: three reads of the new keys and N floats; with `refresh` one of K in so many; scratch 12·D bytes
///          a row. Planned from other evidence than state it is key_diversity.
/// Errors   as key_diversity; contract_violation without sums, or for a negative `refresh`. Nothing is written then.
struct running_diversity {
  float* sums = nullptr;  // (B·H, D), in the context's memory
  keys of = keys::unrotated;
  std::int32_t refresh = 64;  // positions; 0: never

  static constexpr std::int32_t state_floats() { return 1; }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    if constexpr (has<Evidence, facts::state>)
      kernels::sum_state(ctx, e.cache, *e.cache.find(role::state), out);
    else
      key_diversity{of}(ctx, e, out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return std::max(
        3 * scratch_step(s.rows() * s.head_dim * 4) + keys_bytes(of, s) + kernels::require_finite.bytes(ctx, s),
        key_diversity{of}.workspace_bytes(ctx, s));
  }

  template <class Context, class Evidence>
  void observe(Context& ctx, Evidence const& e, component const& state, std::int32_t, score_rows& work) const {
    static_assert(has_attention<Evidence>,
                  "running_diversity: the evidence does not say which tokens are new; use step(cache, queries)");
    KVEVICT_EXPECTS(sums != nullptr && refresh >= 0, "running_diversity: there are no sums, or a refresh of ", refresh,
                    "; give B·H·D floats in the context's memory, and 0 or more positions");
    expect_no_padding("running_diversity", e);
    with_keys("running_diversity", of, ctx, e, [&](auto const& all) { fold(ctx, e, all, state, work); });
  }

  template <class Keys> KVEVICT_HOST_DEVICE static float squared_norm(Keys const& keys, row const& in, std::int64_t j) {
    auto const k = keys.reader(in);
    float sum = 0;
    for (std::int32_t first = 0; first < k.width(); first += row_chunk) {
      float e[row_chunk];
      k.read(j, first, e);
      for (float const y : e) sum += y * y;
    }
    return sum;
  }
  /// Of a key that has just come 1/‖k‖.
  template <class Keys> struct inverse_length {
    Keys keys;
    score_rows rows;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      if (is_fresh(rows, in, j)) x = inverse_root(squared_norm(keys, in, j));
    }
  };
  /// k/‖k‖, where the scores hold 1/‖k‖.
  template <class Keys> struct direction {
    Keys keys;
    score_rows lengths;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first,
                                        float (&x)[row_chunk]) const {
      keys(in, j, first, x);
      float const factor = lengths.score(in, j);
      for (float& e : x) e *= factor;
    }
  };
  /// The sums with the new keys, and their direction.
  struct advance {
    float const *sums, *fresh;
    float *totals, *anchors;
    std::int32_t width;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t r) const {
      bool const begins = in.new_from <= 0;
      float squared = 0;
      for (std::int64_t i = r * width; i < (r + 1) * width; ++i) {
        totals[i] = (begins ? 0.0f : sums[i]) + fresh[i];
        squared += totals[i] * totals[i];
      }
      float const factor = inverse_root(squared);
      for (std::int64_t i = r * width; i < (r + 1) * width; ++i) anchors[i] = totals[i] * factor;
    }
  };
  template <class View, class Keys> struct rescore {
    View cache;
    Keys keys;
    score_rows rows;
    row_places places;
    float const* anchors;
    std::int32_t width, refresh;

    KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
      bool const read_only = j < cache.read_only_tokens(in.sequence);  // whose state means nothing
      if (read_only) x = 0;
      if (read_only || (!is_fresh(rows, in, j) && !is_due(in))) return;  // x is what the state says
      x = -keys.reader(in).dot(j, anchors + rows.index_of(in) * width) * inverse_root(squared_norm(keys, in, j));
    }

   private:
    KVEVICT_HOST_DEVICE bool is_due(row const& in) const {
      if (refresh == 0) return false;
      std::int32_t const n = places.rows(in.sequence);
      bool const said = places.positions != nullptr;
      std::int32_t const first = said ? places.position(in.sequence, 0) : in.tokens - n,
                         last = said ? places.position(in.sequence, n - 1) : in.tokens - 1;
      return first <= 0 || last / refresh != (first - 1) / refresh;
    }
  };
  struct take {
    float const* totals;
    float* sums;
    std::int32_t width;

    constexpr void operator()(row const&, std::int64_t r) const {
      for (std::int64_t i = r * width; i < (r + 1) * width; ++i) sums[i] = totals[i];
    }
  };

 private:
  KVEVICT_HOST_DEVICE static bool is_fresh(score_rows const& rows, row const& in, std::int64_t j) {
    return rows.order(rows.index_of(in), j) >= in.new_from;
  }
  template <class Context, class Evidence, class Keys>
  void fold(Context& ctx, Evidence const& e, Keys const& all, component const& state, score_rows& work) const {
    auto const D = static_cast<std::int32_t>(all.of.width());
    frame scratch(ctx.scratch());
    float *const fresh = scratch.template allocate<float>(work.count() * D),
                 *const totals = scratch.template allocate<float>(work.count() * D),
                 *const anchors = scratch.template allocate<float>(work.count() * D);  // (B·H, D)
    kernels::each_token(ctx, work, inverse_length<Keys>{all, work});
    kernels::row_sums(ctx, work, token_groups{0, 0, token_range::fresh}, D, direction<Keys>{all, work}, fresh);
    kernels::each_row(ctx, work, advance{sums, fresh, totals, anchors, D});
    kernels::sum_state(ctx, e.cache, state, work);
    kernels::each_token(ctx, work,
                        rescore<std::remove_cvref_t<decltype(e.cache)>, Keys>{e.cache, all, work, e.attention.places(),
                                                                              anchors, D, refresh});
    kernels::require_finite(ctx, work);  // before anything is written
    kernels::each_row(ctx, work, take{totals, sums, D});
    kernels::update_state(ctx, e.cache, state, update_options{state_update::assign, new_token_state::kept}, work);
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
