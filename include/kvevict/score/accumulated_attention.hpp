// SPDX-License-Identifier: Apache-2.0
// Attention summed over everything that has looked at a token.
#pragma once

#include <algorithm>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// What a column sum is divided by: nothing, or the number of rows that see the column, which takes most of the
/// positional bias.
enum class column_norm : std::uint8_t { none, rows_that_see };

/// Attention that a token has received from all rows so far, group mean.
///
///   o(h,j) = 1/G · Σ_g Σ_{i≥j} a(h·G+g, i, j)         [rows_that_see: ÷ the rows that see j, N − j of a plain prompt]
///
/// Paper    H2O, Zhang et al., NeurIPS 2023, arXiv:2306.14048; with rows_that_see kvpress' observed attention.
///          Differs: GQA by the group mean (the authors' code has none).
/// Shapes   prompt: queries (N,Hq,D), keys (H,N,D) → (H,N) float; while decoding one float per slot, kept by `observe`
///          in the cache's role::state component and read back through remembered(cache).
/// Cost     prompt: Hq·N²·D flop with LSE, twice that without, O(N) memory; a step: one row.
/// Errors   contract_violation if a row's weights do not add up to 1, or if a sequence provides more or fewer rows than
///          it has slots in use: behind padding and in a shard rows are observed, and planned from remembered(cache).
struct accumulated_attention {
  column_norm norm = column_norm::none;
  group_reduce group = group_reduce::mean;

  static constexpr std::int32_t state_floats() { return 1; }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(
        has_attention<Evidence> || has<Evidence, facts::state>,
        "accumulated_attention: the evidence has no queries, no "
        "softmax rows and no state; use prompt(cache, queries) of all tokens, or observe(...) and remembered(cache)");
    if constexpr (has<Evidence, facts::state>)
      kernels::sum_state(ctx, e.cache, *e.cache.find(role::state), out);
    else
      kernels::column_sums(ctx, e.cache, e.attention, group, out);
    if (norm == column_norm::none) return;
    KVEVICT_EXPECTS(out.positions == nullptr,
                    "accumulated_attention: rows_that_see counts rows by index, and the rows are scattered; "
                    "use stable compaction or column_norm::none");
    if constexpr (has<Evidence, facts::state>)
      kernels::each_token(ctx, out, divide_by_age<decltype(e.cache)>{e.cache, e.sees});
    else
      kernels::each_token(ctx, out, divide<decltype(e.cache), decltype(e.attention)>{e.cache, e.attention});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return std::max(kernels::column_sums.bytes(ctx, s), kernels::window_scores.bytes(ctx, s, window_options{1}));
  }

  /// Adds the newest rows' attention to the state; the tokens of those rows start from zero.
  template <class Context, class Evidence>
  void observe(Context& ctx, Evidence const& e, component const& state, std::int32_t new_rows, score_rows& work) const {
    static_assert(has_attention<Evidence>,
                  "accumulated_attention: the evidence has no queries and no softmax rows; use step(cache, queries)");
    kernels::newest_sums(ctx, e.cache, e.attention, window_options{new_rows, row_reduce::sum, group}, work);
    kernels::require_finite(ctx, work);
    kernels::update_state(ctx, e.cache, state, update_options{}, work);
  }

  /// Of a prompt: by its rows that see the token.
  template <class View, class Rows> struct divide {
    View cache;
    Rows rows;

    constexpr void operator()(row const& in, std::int64_t j, float& x) const {
      std::int64_t count = in.tokens - j;
      if (!sees_by_index(cache, rows)) {
        window_rows const all = newest_rows(cache, rows, in.sequence, in.tokens, in.tokens, row_place::in_cache);
        count = rows_that_see(sights_of(cache, rows, in.sequence, in.head, in.tokens, all, row_place::in_cache),
                              all.count, static_cast<std::int32_t>(j));
      }
      if (count > 0) x /= static_cast<float>(count);
    }
  };
  /// Of a state: by the rows since the token came, evicted ones, too, where the cache carries positions.
  template <class View> struct divide_by_age {
    View cache;
    visibility sees;

    constexpr void operator()(row const& in, std::int64_t j, float& x) const {
      component const* const carried = cache.find(role::position);
      auto const position = [&](std::int64_t token) -> std::int64_t {
        return carried == nullptr ? token - sees.padding(in.sequence)
                                  : element<std::int32_t const>(cache, *carried, in.sequence, in.head, token);
      };
      std::int64_t const count = rows_since(sees, position(j), position(in.tokens - 1));
      if (count > 0) x /= static_cast<float>(count);
    }
  };
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
