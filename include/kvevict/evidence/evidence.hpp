// SPDX-License-Identifier: Apache-2.0
// What an engine can show a policy: a cache, and facts about how it was attended to. A stage that needs a fact which
// the evidence lacks does not compile.
#pragma once

#include <concepts>
#include <type_traits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/attention_rows.hpp>
#include <kvevict/core/gate.hpp>
#include <kvevict/core/older_tokens.hpp>
#include <kvevict/core/projection.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/query_moments.hpp>
#include <kvevict/core/rope.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

namespace facts {
struct queries {
  query_rows attention;
};  // rotated queries of the newest tokens; weights follow from K
struct weights {
  attention_rows attention;
};  // softmax rows of the newest tokens
struct features {
  feature_rows input;
};  // hidden states of the newest tokens: the layer's input
struct moments {
  query_moments moments;
};                 // what the model's queries are like before rotation
struct lse {};     // the queries carry the row LSE
struct future {};  // the queries belong to tokens that come after the cache
struct state {};   // the cache carries a role::state component that `observe` has filled
}  // namespace facts

/// A cache with facts about it. Cheap to copy; owns nothing.
template <class View, class... Facts> struct evidence : Facts... {
  View cache;
  visibility sees{};                         // of the layer's rows of attention, these and later ones
  older_tokens older = older_tokens::none;   // of every sequence, for observe() alone
  older_tokens const* older_each = nullptr;  // (B) of each, in the context's memory; null: `older` for all
  rope turned_by{};                          // what turned the cache's keys, where a score asks
  projection output{};                       // the layer's W_O, where a score asks

  constexpr older_tokens older_of(std::int32_t b) const { return older_each == nullptr ? older : older_each[b]; }

  /// The row log-sum-exp that the engine's softmax used, (T,Hq), in that base: exact weights in one pass. −inf is a row
  /// that sees no token, and counts for nothing. From a sequence and a layer to the next it lies
  /// query_rows::lse_seq_stride and lse_layer_stride apart.
  ///
  /// Errors   contract_violation by the verb that reads it, if a row's weights do not add up to 1, see
  ///          kernels::expect_sums for the tolerance, or a score is not finite.
  auto with_lse(float const* values, std::int64_t token_stride, std::int64_t head_stride,
                log_base base = log_base::e) const {
    static_assert((std::is_same_v<Facts, facts::queries> || ...),
                  "with_lse: an LSE belongs to queries; provide them with prompt(cache, queries)");
    evidence<View, Facts..., facts::lse> out{
        static_cast<Facts const&>(*this)..., {}, cache, sees, older, older_each, turned_by, output};
    out.attention.lse = values;
    out.attention.lse_token_stride = token_stride;
    out.attention.lse_head_stride = head_stride;
    out.attention.base = base;
    return out;
  }
  /// The logit scale that the engine's softmax used; default 1/√D.
  evidence with_scale(float scale) const {
    evidence out = *this;
    out.attention.scale = scale;
    return out;
  }
  /// What turned the cache's keys, for scores that read them before rotation: those of components that say
  /// rotation::rope.
  evidence with_rope(rope const& r) const {
    evidence out = *this;
    out.turned_by = r;
    return out;
  }
  /// The layer's output projection, for scores that weigh a token by what its value adds to the layer's output; where
  /// the cache has a role::output_norm component, they read that.
  evidence with_output(projection const& wo) const {
    evidence out = *this;
    out.output = wo;
    return out;
  }
  /// Mean and covariance of the model's queries before rotation, for scores of what later queries will attend to.
  auto with_query_moments(query_moments const& m) const {
    return evidence<View, Facts..., facts::moments>{
        static_cast<Facts const&>(*this)..., {m}, cache, sees, older, older_each, turned_by, output};
  }
  /// What a row sees, where that is not all of its past: a sliding window, chunks, sinks, padding on the left. Of a
  /// layer whose rows see fewer tokens than its budget, plan() keeps those that the newest row sees, and no others.
  evidence with_visibility(visibility const& v) const {
    evidence out = *this;
    out.sees = v;
    if constexpr (requires { out.attention.sees; }) out.attention.sees = v;
    return out;
  }
  /// The engine's softmax went over more tokens than the cache holds (other shards', evicted since) or had a learned
  /// sink: the weights of a row add up to less than 1.
  evidence partial() const {
    static_assert(
        (std::is_same_v<Facts, facts::lse> || ...) || (std::is_same_v<Facts, facts::weights> || ...),
        "partial: only an LSE or softmax rows can be of more tokens than the cache holds; use with_lse first");
    evidence out = *this;
    out.attention.sum = row_sum::at_most_one;
    return out;
  }
  /// A learned logit of each query head, (Hq), in the softmax of every row.
  evidence with_sink_logits(float const* logits) const {
    static_assert((std::is_same_v<Facts, facts::queries> || ...),
                  "with_sink_logits: they stand beside logits of queries; provide those with prompt(cache, queries)");
    evidence out = *this;
    out.attention.sink_logits = logits;
    return out;
  }
  /// What the state of tokens before the new rows holds, for observe(): see older_tokens.
  evidence with_older(older_tokens what) const {
    evidence out = *this;
    out.older = what, out.older_each = nullptr;
    return out;
  }
  /// The same of each sequence, (B): chunks, steps and new sequences in one call.
  evidence with_older(older_tokens const* each) const {
    evidence out = *this;
    out.older_each = each;
    return out;
  }
  /// c·tanh(z/c) on the logits, as the engine's softmax had it; default none.
  evidence with_softcap(float cap) const {
    evidence out = *this;
    out.attention.softcap = cap;
    return out;
  }
};

template <class Evidence, class Fact> inline constexpr bool has = std::is_base_of_v<Fact, Evidence>;
template <class Evidence>
inline constexpr bool has_attention = has<Evidence, facts::queries> || has<Evidence, facts::weights>;

/// What the verbs read of a cache: pages, lengths and components.
template <class View>
concept cache_view = requires(View const& view) {
  typename View::table_entry;
  { view.find(role::k) } -> std::same_as<component const*>;
  view.pages;
  view.lengths;
};

/// A cache with facts about it.
template <class Evidence>
concept evidence_of_cache = requires(Evidence const& e) {
  requires cache_view<std::remove_cvref_t<decltype(e.cache)>>;
};

/// After prefill (a whole prompt or its last chunk): the rotated queries of the newest tokens. Window policies need the
/// last W, accumulated attention all of them. To observe() it is a beginning: tokens before the rows that are not
/// read-only are refused, unless with_older() says what their state holds.
template <class Entry> auto prompt(layer_view<Entry> const& cache, query_rows const& queries) {
  return evidence<layer_view<Entry>, facts::queries>{{queries}, cache, queries.sees};
}
/// The same from an engine whose attention is eager: softmax rows in place of queries.
template <class Entry> auto prompt(layer_view<Entry> const& cache, attention_rows const& rows) {
  return evidence<layer_view<Entry>, facts::weights>{{rows}, cache, rows.sees};
}
/// Hidden states of the newest tokens, for gates: of a whole prompt, or, with the gate's memory, of its next chunk.
template <class Entry> auto prompt(layer_view<Entry> const& cache, feature_rows const& rows) {
  return evidence<layer_view<Entry>, facts::features>{{rows}, cache, {}};
}
/// One decoding step: one row of every sequence, or as many as it has accepted, whose tokens are already in the cache.
/// A prompt whose older tokens have been observed: `observe` checks that each row has a position and its token a place
/// in the cache (but in a shard, see partial()), and that no more tokens come before the first one than positions.
template <class Entry, class Rows> auto step(layer_view<Entry> const& cache, Rows const& rows) {
  return prompt(cache, rows).with_older(older_tokens::observed);
}

/// K, V and positions alone: for policies that need no attention.
template <class Entry> auto contents(layer_view<Entry> const& cache) { return evidence<layer_view<Entry>>{cache, {}}; }

/// What `observe` has written into the cache's role::state component.
template <class Entry> auto remembered(layer_view<Entry> const& cache) {
  return evidence<layer_view<Entry>, facts::state>{{}, cache, {}};
}

/// The true queries of tokens that come after the cache, with their LSE over everything they saw: for the oracle only.
template <class Entry> auto future(layer_view<Entry> const& cache, query_rows const& queries) {
  return evidence<layer_view<Entry>, facts::queries, facts::future>{{queries}, {}, cache, queries.sees};
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
