// SPDX-License-Identifier: Apache-2.0
// What a kernel is: a function object that finds its overload by the context, so that the text of an algorithm exists
// once.
#pragma once

#include <cstdint>
#include <utility>

#include <kvevict/core/host.hpp>
#include <kvevict/core/window.hpp>

/// Declares kernels::name; ctx's own namespace (or this one, for the host) supplies kernel(name_tag, ctx, …), and, for
/// kernels that take scratch, workspace(name_tag, ctx, shape, …), which name.bytes(…) calls.
#define KVEVICT_KERNEL(name)                                                                         \
  struct name##_tag {};                                                                              \
  struct name##_function {                                                                           \
    template <class Context, class... Arguments>                                                     \
    constexpr decltype(auto) operator()(Context& ctx, Arguments&&... arguments) const {              \
      if constexpr (requires { kernel(name##_tag{}, ctx, std::forward<Arguments>(arguments)...); })  \
        return kernel(name##_tag{}, ctx, std::forward<Arguments>(arguments)...);                     \
      else                                                                                           \
        static_assert(missing_kernel<name##_tag, Context>,                                           \
                      "kernels::" #name                                                              \
                      " has no overload for this context; "                                          \
                      "include the header of the context's kernels or write kernel(" #name           \
                      "_tag, ctx, ...) beside it");                                                  \
    }                                                                                                \
    template <class Context, class... Arguments>                                                     \
    std::int64_t bytes(Context const& ctx, Arguments const&... arguments) const {                    \
      if constexpr (requires { workspace(name##_tag{}, ctx, arguments...); })                        \
        return workspace(name##_tag{}, ctx, arguments...);                                           \
      else                                                                                           \
        static_assert(missing_kernel<name##_tag, Context>,                                           \
                      "kernels::" #name                                                              \
                      " does not tell its scratch for this "                                         \
                      "context; on a device use cuda::device::try_out(stream, call).scratch_bytes"); \
    }                                                                                                \
  };                                                                                                 \
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
  visibility sees = visibility::causal;
  pool_options pool_before_group{};  // kvpress pools each query head before the group's mean
  pool_options pool{};               // of the scores, over the evictable tokens
};

/// A question to `count_best`: of the `count` best evictable tokens of a sequence (score descending, position
/// descending, head ascending), how many lie in each head? The `forced` best of every head come first; `weights` (one
/// per head, or null) multiply the scores.
struct best_of {
  std::int64_t count = 0;
  std::int32_t forced = 0;
  float const* weights = nullptr;
};

/// The same for all sequences at once: each asks for the quotas of its heads together, and ⌊forced_permille/1000 of
/// their mean⌋ tokens of every head come first.
struct pooled_best {
  std::int32_t forced_permille = 0;
  float const* weights = nullptr;
};

/// Which tokens are pooled: those before the recent window, or all.
enum class pool_range : std::uint8_t { evictable, all };

/// What a token of a gate reads: earlier tokens and itself, or the complete prompt.
enum class gate_mask : std::uint8_t { causal, bidirectional };

enum class folding : std::uint8_t { add, assign };
enum class fresh : std::uint8_t { kept, zeroed };

/// Which column of a ring a row of attention belongs to: its position modulo the width. Without positions: column 0.
struct ring {
  std::int32_t const* positions = nullptr;  // (T)
  std::int32_t const* row_begin = nullptr;  // (B + 1)
  std::int32_t width = 1;

  /// Of sequence b's row that `newer` rows follow.
  constexpr std::int32_t column(std::int32_t b, std::int32_t newer) const {
    return positions == nullptr ? 0 : positions[row_begin[b + 1] - 1 - newer] % width;
  }
};

/// How rows of weights enter the per-slot state: each added to or assigned to its column, oldest first, after the state
/// of tokens that have just arrived is zeroed (a page's memory may be an evicted token's).
struct fold_options {
  folding how = folding::add;
  fresh forget = fresh::zeroed;
  ring columns{};
  std::int32_t rows = 1;  // score_rows::plane 0, 1, …
};

namespace kernels {

template <class Tag, class Context> inline constexpr bool missing_kernel = false;

// Of each the arguments behind the context, what it returns, what it does.
// clang-format off
KVEVICT_KERNEL(validate);         // (evidence): raises unless the cache is sound and the rows fit it
KVEVICT_KERNEL(plan_rows);        // (frame&, view, protect, layers, budget, sharing) → score_rows of plan()
KVEVICT_KERNEL(observe_rows);     // (frame&, evidence, protect, layers, budget) → score_rows of observe()
KVEVICT_KERNEL(new_rows);         // (evidence) → rows of attention that every sequence hands in
KVEVICT_KERNEL(read_scores);      // (score_rows, std::vector<float>&): to the host, inactive rows as zeros
KVEVICT_KERNEL(window_scores);    // (view, query_rows, window_options, score_rows): attention to each token
KVEVICT_KERNEL(window_weights);   // (view, query_rows, window_options, score_rows): of each window row, a plane each
KVEVICT_KERNEL(column_sums);      // (view, query_rows, group_reduce, score_rows): Σ over all rows of causal attention
KVEVICT_KERNEL(newest_sums);      // (view, query_rows, window_options, score_rows): window_scores, or column_sums
KVEVICT_KERNEL(squared_norms);    // (view, component, score_rows): ‖row‖² of every token
KVEVICT_KERNEL(multiply_by_share);// (score_rows share, score_rows): each row times share ÷ its maximum
KVEVICT_KERNEL(pool);             // (pool_options, [pool_range,] score_rows): in place
KVEVICT_KERNEL(require_finite);   // (score_rows): raises when an evictable token of an active row is not finite
KVEVICT_KERNEL(select_best);      // (score_rows, keep_set&): protected tokens and the quota() best of each row
KVEVICT_KERNEL(count_best);       // (score_rows, sequence, best_of, std::int32_t* counts (H))
KVEVICT_KERNEL(count_pooled);     // (score_rows, pooled_best, std::int32_t* counts (B·H)): of every sequence
KVEVICT_KERNEL(each_token);       // (score_rows, f): f(row, token, score&) for tokens of active rows; f is constexpr
KVEVICT_KERNEL(each_row);         // (score_rows, f): f(row, r) for active rows, for what is left of a reduction
KVEVICT_KERNEL(row_sums);         // (score_rows, token_groups, width, f, float* out (B·H,G,width)): Σ f over tokens
KVEVICT_KERNEL(row_max);          // the same: the largest
KVEVICT_KERNEL(row_min);          // the same: the smallest
KVEVICT_KERNEL(each_sequence);    // (score_rows, f): f(slice<row> heads, sequence) for every sequence; f is constexpr
KVEVICT_KERNEL(sum_state);        // (view, component, score_rows): Σ of the floats that each slot's state holds
KVEVICT_KERNEL(fold_state);       // (view, component, fold_options, score_rows): weights into each slot's state
KVEVICT_KERNEL(gate);             // (gate_weights, feature_rows, gate_mask, sequences, heads, float* p (T,H))
KVEVICT_KERNEL(expect_prompt);    // (feature_rows, score_rows): raises unless the rows are the whole cache's, in order
KVEVICT_KERNEL(most_rows);        // (feature_rows, sequences) → at least as many as all sequences hand in together
KVEVICT_KERNEL(put_rows);         // (feature_rows, float const* p (T,H), score_rows): p into the newest tokens' scores
KVEVICT_KERNEL(count_above);      // (score_rows, float threshold, std::int32_t* counts (B·H))
KVEVICT_KERNEL(move_rows);        // (view, move_plan): the moves of every row, in every component
// clang-format on

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
