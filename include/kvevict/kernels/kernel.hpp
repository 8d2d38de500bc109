// SPDX-License-Identifier: Apache-2.0
// What a kernel is: a function object that finds its overload by the context, so that the text of an algorithm exists
// once.
#pragma once

#include <cstdint>
#include <utility>

#include <kvevict/core/host.hpp>
#include <kvevict/core/row_places.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/window.hpp>

/// Declares the kernel `name` in the namespace where this stands, yours or the library's. The context's namespace, or
/// the one where this stands, supplies
///   kernel(name_tag, ctx, …)              what name(ctx, …) calls
///   has_kernel(name_tag, ctx)             declared only: the context has such a kernel, whatever the arguments are
///   workspace(name_tag, ctx, shape, …)    its scratch, for kernels that take any: what name.bytes(ctx, …) calls
/// The strings say which headers define it for the host and for CUDA.
#define KVEVICT_KERNEL(name, host_header, cuda_header)                                                               \
  struct name##_tag {};                                                                                              \
  struct name##_function {                                                                                           \
    template <class Context, class... Arguments>                                                                     \
    constexpr decltype(auto) operator()(Context& ctx, Arguments&&... arguments) const {                              \
      if constexpr (requires { kernel(name##_tag{}, ctx, std::forward<Arguments>(arguments)...); })                  \
        return kernel(name##_tag{}, ctx, std::forward<Arguments>(arguments)...);                                     \
      else if constexpr (requires { has_kernel(name##_tag{}, ctx); })                                                \
        static_assert(::kvevict::kernels::never<name##_tag, Context>,                                                \
                      #name ": the arguments do not match; compare them with kernel(" #name                          \
                            "_tag, ctx, ...) in " host_header " (host) or " cuda_header " (CUDA)");                  \
      else                                                                                                           \
        static_assert(::kvevict::kernels::never<name##_tag, Context>,                                                \
                      #name ": no kernel for this context; include " host_header " (host) or " cuda_header           \
                            " (CUDA), or write kernel(" #name "_tag, ctx, ...) and has_kernel(" #name "_tag, ctx)"); \
    }                                                                                                                \
    template <class Context, class... Arguments>                                                                     \
    std::int64_t bytes(Context const& ctx, Arguments const&... arguments) const {                                    \
      if constexpr (requires { workspace(name##_tag{}, ctx, arguments...); })                                        \
        return workspace(name##_tag{}, ctx, arguments...);                                                           \
      else                                                                                                           \
        static_assert(::kvevict::kernels::never<name##_tag, Context>, #name                                          \
                      " does not tell its scratch for this context; on a device use "                                \
                      "cuda::device::try_out(stream, call).scratch_bytes");                                          \
    }                                                                                                                \
  };                                                                                                                 \
  inline constexpr name##_function name {}

namespace kvevict {
inline namespace KVEVICT_ABI {

enum class group_reduce : std::uint8_t { mean, max, sum };  // over the G query heads of a KV head
enum class row_reduce : std::uint8_t { mean, sum };         // over the W window rows
enum class pooling : std::uint8_t { max, average };

/// Pooling along the tokens, stride 1, odd width; max pads with −∞, average pads with zeros and always divides by the
/// width. Width 1: off.
struct pool_options {
  std::int32_t width = 1;
  pooling kind = pooling::max;
};

/// Which softmax the window's weights come from: the model's own, or AhaKV's softmax(g_i·z), g_i = √(2 ln(i/k)), i =
/// position + 1, k = the row's budget; a row with i ≤ k·exp(min_gain²/2) takes min_gain.
enum class weighting : std::uint8_t { softmax, step_gain };

struct window_options {
  std::int32_t rows = 32;  // W: the last W query rows of each sequence are read
  row_reduce reduce = row_reduce::mean;
  group_reduce group = group_reduce::mean;
  weighting weights = weighting::softmax;
  float min_gain = 0;
  row_place place = row_place::in_cache;
  pool_options pool_before_group{};                 // kvpress pools each query head before the group's mean
  pool_options pool{};                              // of the scores, over the evictable tokens
  pool_options pool_each_row{1, pooling::average};  // fold_window: of every row's weights, whose sum stays
};

/// A question to `count_pooled`: of the best evictable tokens of a pool (score descending, position descending, layer,
/// head ascending), as many as the quotas of its rows together, how many lie in each row? ⌊forced_permille/1000 of
/// the mean quota⌋ best tokens of every row come first; `weights` (one per head, or null) multiply the scores.
struct pooled_best {
  std::int32_t forced_permille = 0;
  float const* weights = nullptr;
  pool_over over = pool_over::heads;
};

/// What best_over_ranks finds of a row: tokens beyond the last one that is in, and tokens that equal it.
struct contested {
  std::int64_t above = 0, equal = 0;
};

/// Which tokens are pooled: those before the recent window, or all.
enum class pool_range : std::uint8_t { evictable, all };

/// What a token of a gate reads: earlier tokens and itself, or the complete prompt.
enum class gate_mask : std::uint8_t { causal, bidirectional };

enum class state_update : std::uint8_t { add, assign };
enum class new_token_state : std::uint8_t { kept, zeroed };

/// Which column of a ring a row of attention belongs to: its position modulo the width. Without positions: column 0.
struct ring {
  row_places of{};
  std::int32_t width = 1;

  /// How many planes of weights belong to sequence b, of at most `most`.
  constexpr std::int32_t planes(std::int32_t b, std::int32_t most) const {
    std::int32_t const given = of.positions == nullptr ? most : of.rows(b);
    return given < most ? given : most;
  }
  /// Of sequence b's row that `newer` rows follow.
  constexpr std::int32_t column(std::int32_t b, std::int32_t newer) const {
    return of.positions == nullptr ? 0 : of.position(b, of.rows(b) - 1 - newer) % width;
  }
};

/// How rows of weights enter the per-slot state: each added to or assigned to its column, oldest first, after the state
/// of tokens that have just arrived is zeroed (a page's memory may be an evicted token's).
struct update_options {
  state_update how = state_update::add;
  new_token_state new_tokens = new_token_state::zeroed;
  ring columns{};
  std::int32_t rows = 1;  // score_rows::plane 0, 1, …; of a sequence with fewer rows its first ones
};

namespace kernels {

template <class Tag, class Context> inline constexpr bool never = false;

// Of each the arguments behind the context, what it returns, what it does.
// clang-format off
// (evidence): raises unless the cache is sound and the rows fit it
KVEVICT_KERNEL(validate, "evidence/validate.hpp", "cuda/evidence/validate.hpp");
// (frame&, view, protect, layers, budget, sharing[, page]) → score_rows of plan()
KVEVICT_KERNEL(plan_rows, "evidence/rows.hpp", "cuda/evidence/rows.hpp");
// (view, score_rows, alike): raises unless rows that keep one set hold the same tokens, or as many
KVEVICT_KERNEL(same_tokens, "evidence/same_tokens.hpp", "cuda/evidence/same_tokens.hpp");
// (frame&, evidence, protect, layers, budget) → score_rows of observe()
KVEVICT_KERNEL(observe_rows, "evidence/rows.hpp", "cuda/evidence/new_rows.hpp");
// (evidence) → rows of attention that a sequence provides, or more
KVEVICT_KERNEL(new_rows, "evidence/rows.hpp", "cuda/evidence/rows.hpp");
// (query_ring, query_rows, sequences): new rows into the ring of the last ones
KVEVICT_KERNEL(push_queries, "evidence/query_ring.hpp", "cuda/evidence/query_ring.hpp");
// (score_rows, std::vector<float>&): to the host, inactive rows as zeros
KVEVICT_KERNEL(read_scores, "kernels/each.hpp", "cuda/scores/each.hpp");
// (view, query_rows, window_options, score_rows): attention to each token
KVEVICT_KERNEL(window_scores, "kernels/window_scores.hpp", "cuda/attention/attention.hpp");
// (view, query_rows, window_options, score_rows): of each window row, a plane each
KVEVICT_KERNEL(window_weights, "kernels/window_scores.hpp", "cuda/attention/attention.hpp");
// (view, query_rows, window_options, fold, score_rows): what a fold makes of each token's weights, see window_fold
KVEVICT_KERNEL(fold_window, "kernels/fold_window.hpp", "cuda/attention/fold_window.hpp");
// (view, query_rows, group_reduce, score_rows): Σ over all rows of causal attention
KVEVICT_KERNEL(column_sums, "kernels/column_sums.hpp", "cuda/attention/attention.hpp");
// (view, query_rows, window_options, score_rows): window_scores, or column_sums
KVEVICT_KERNEL(newest_sums, "kernels/newest_sums.hpp", "cuda/attention/attention.hpp");
// (view, component, score_rows): ‖row‖² of every token
KVEVICT_KERNEL(squared_norms, "kernels/squared_norms.hpp", "cuda/scores/squared_norms.hpp");
// (rope, std::int32_t width, std::uint64_t* steps (width/2)): rope::step of every pair
KVEVICT_KERNEL(rope_steps, "kernels/rope_steps.hpp", "cuda/scores/rope_steps.hpp");
// (score_rows share, score_rows): each row times share ÷ its maximum
KVEVICT_KERNEL(multiply_by_share, "kernels/multiply_by_share.hpp", "cuda/scores/multiply_by_share.hpp");
// (pool_options, [pool_range,] score_rows): in place
KVEVICT_KERNEL(pool, "kernels/pool.hpp", "cuda/scores/pool.hpp");
// (score_rows): raises when an evictable token of an active row is not finite
KVEVICT_KERNEL(require_finite, "kernels/require_finite.hpp", "cuda/scores/require_finite.hpp");
// (score_rows): rows of sequences at fault are kept whole, where the call leaves them out
KVEVICT_KERNEL(leave_faulty_out, "evidence/rows.hpp", "cuda/evidence/outcomes.hpp");
// (score_rows, keep_set&): protected tokens and the quota() best of each row
KVEVICT_KERNEL(select_best, "kernels/select_best.hpp", "cuda/select/select_best.hpp");
// (score_rows, float* cuts (B·H)): the score of the quota()-th best token of each row
KVEVICT_KERNEL(cut_scores, "kernels/cut_scores.hpp", "cuda/select/cut_scores.hpp");
// (frame&, score_rows, std::int32_t page_size) → score_rows of full pages, without scores
KVEVICT_KERNEL(page_rows, "kernels/select_pages.hpp", "cuda/select/select_pages.hpp");
// (score_rows of pages, keep_set&): the tokens of the pages that select_best keeps, and of the part-filled last one
KVEVICT_KERNEL(select_pages, "kernels/select_pages.hpp", "cuda/select/select_pages.hpp");
// (score_rows, keep_set, std::int32_t* orders (B·H,N)): the rows' orders, but for kept tokens, which no row may evict
KVEVICT_KERNEL(mark_kept, "kernels/mark_kept.hpp", "cuda/select/mark_kept.hpp");
// (score_rows, pooled_best, std::int32_t* counts (B·H)): of every pool
KVEVICT_KERNEL(count_pooled, "kernels/count_best.hpp", "cuda/select/count_best.hpp");
// (score_rows, pool_quota const* (S), all_reduce, contested* (B·H), std::int64_t* takes (S)) → whether any may be cut
KVEVICT_KERNEL(best_over_ranks, "kernels/best_over_ranks.hpp", "cuda/select/best_over_ranks.hpp");
// (score_rows, std::uint32_t* histograms (B·H, 2048)): of the leading bits of order_key of evictable scores
KVEVICT_KERNEL(score_histograms, "kernels/score_histograms.hpp", "cuda/select/score_histograms.hpp");
// (score_rows, f): f(row, token, score&) for tokens of active rows; f is constexpr
KVEVICT_KERNEL(each_token, "kernels/each.hpp", "cuda/scores/each.hpp");
// (score_rows, f): f(row, r) for active rows, for what is left of a reduction
KVEVICT_KERNEL(each_row, "kernels/each.hpp", "cuda/scores/each.hpp");
// (score_rows, std::int64_t bytes, f): f(some) of a few rows, then the next: a second read is from a cache
KVEVICT_KERNEL(few_rows, "kernels/each.hpp", "cuda/scores/each.hpp");
// (score_rows, elements, float* sums (B·H,D)): Σ of directions; the scores become 1/length
KVEVICT_KERNEL(direction_sums, "kernels/direction_sums.hpp", "cuda/scores/direction_sums.hpp");
// (score_rows, elements, float const* vectors (B·H,D), f): f(product with the row's vector, score&) of every token
KVEVICT_KERNEL(row_products, "kernels/row_products.hpp", "cuda/scores/row_products.hpp");
// (score_rows, token_groups, elements): σ over the channels, relative to their ranges in the group behind
KVEVICT_KERNEL(channel_spreads, "kernels/channel_spreads.hpp", "cuda/scores/channel_spreads.hpp");
// (score_rows, token_groups, width, f, float* out (B·H,G,width)): Σ f over tokens
KVEVICT_KERNEL(row_sums, "kernels/row_reductions.hpp", "cuda/scores/row_reductions.hpp");
// the same: the largest
KVEVICT_KERNEL(row_max, "kernels/row_reductions.hpp", "cuda/scores/row_reductions.hpp");
// the same: the smallest
KVEVICT_KERNEL(row_min, "kernels/row_reductions.hpp", "cuda/scores/row_reductions.hpp");
// (score_rows, std::int32_t D, f, double* out (B·H,D,D)): Σ over tokens of f's outer product, the lower half
KVEVICT_KERNEL(gram, "kernels/gram.hpp", "cuda/scores/gram.hpp");
// (score_rows, std::int32_t D, cholesky_options, double* a (B·H,D,D), float* out (B·H,D,D)): L⁻¹ of a + ridge
KVEVICT_KERNEL(inverse_cholesky, "kernels/inverse_cholesky.hpp", "cuda/scores/inverse_cholesky.hpp");
// (score_rows, map, f): Σ over the map's lines of what every token makes of them, such as ‖M·f‖², see mapped_sums.hpp
KVEVICT_KERNEL(mapped_sums, "kernels/mapped_sums.hpp", "cuda/scores/mapped_sums.hpp");
// (score_rows, f): f(slice<row> heads, sequence) for every sequence; f is constexpr
KVEVICT_KERNEL(each_sequence, "kernels/each.hpp", "cuda/scores/each.hpp");
// (view, component, score_rows): Σ of the floats that each slot's state holds
KVEVICT_KERNEL(sum_state, "kernels/slot_state.hpp", "cuda/scores/slot_state.hpp");
// (view, component, update_options, score_rows): weights into each slot's state
KVEVICT_KERNEL(update_state, "kernels/slot_state.hpp", "cuda/scores/slot_state.hpp");
// (gate_weights, feature_rows, gate_mask, sequences, heads, float* p (T,H))
KVEVICT_KERNEL(gate, "kernels/gate.hpp", "cuda/gate/gate.hpp");
// (feature_rows, score_rows): raises unless the rows are the whole cache's, in order
KVEVICT_KERNEL(expect_prompt, "kernels/gate.hpp", "cuda/gate/gate.hpp");
// (feature_rows, sequences) → at least as many as all sequences provide together
KVEVICT_KERNEL(most_rows, "kernels/gate.hpp", "cuda/evidence/rows.hpp");
// (feature_rows, float const* p (T,H), score_rows): p into the newest tokens' scores
KVEVICT_KERNEL(put_rows, "kernels/gate.hpp", "cuda/gate/gate.hpp");
// (score_rows, float threshold, std::int32_t* counts (B·H))
KVEVICT_KERNEL(count_above, "kernels/count_above.hpp", "cuda/select/count_above.hpp");
// (char const* stage, std::int32_t const* shares, n): raises unless each is 0 to most_share
KVEVICT_KERNEL(expect_shares, "kernels/expect_shares.hpp", "cuda/select/expect_shares.hpp");
// (view, move_plan): the moves of every row, in every component
KVEVICT_KERNEL(move_rows, "kernels/move_rows.hpp", "cuda/apply/move_rows.hpp");
// clang-format on

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
