// SPDX-License-Identifier: Apache-2.0
// The presets of presets.hpp behind one type. Defined in laws/presets.cpp.
#pragma once

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/budget.hpp>

#include "support/batch_cache.hpp"
#include "support/gate_case.hpp"

namespace support {

// Small, so that a cache of 60 tokens shows everything.
inline constexpr std::int32_t window = 8, pool = 5, sinks = 2, recent = 5, floor_permille = 200;

/// What the reference says about one sequence: scores of the evictable tokens (H,M), which those are, and the tokens
/// that stay.
struct answer {
  rows scores;
  reference::evictable where;
  index_rows keep;
};

struct question {
  reference::layer const& all;  // N + future tokens
  std::size_t N, budget, layer, layers;

  [[nodiscard]] reference::layer prompt() const { return reference::prefix(all, N); }
};

/// The gate of the laws: its flags are OR'ed to 1, 2, 3 or 4 KV heads.
inline gate_case const& law_gate() {
  static gate_case const gate({.N = {}, .H = 12, .heads = 2, .width = 3, .features = 8, .spread = 2, .seed = 9});
  return gate;
}
/// Its hidden states, (N,E): something of every token.
inline rows hidden_states(reference::layer const& l, std::size_t N) {
  rows out(N, reference::row(8, 0.0));
  for (std::size_t t = 0; t < N; ++t)
    for (std::size_t e = 0; e < 8; ++e) {
      for (std::size_t h = 0; h < l.H(); ++h) out[t][e] += l.keys.at(h, t, e);
      out[t][e] = static_cast<double>(static_cast<float>(out[t][e]));
    }
  return out;
}
inline hidden hidden_states(batch const& in) {
  gate_case of = law_gate();
  for (std::size_t b = 0; b < in.B(); ++b) of.X.push_back(hidden_states(in.layers[b], in.N[b]));
  return of.states();
}

/// What an engine has of the prompt's attention.
enum class form : std::uint8_t { queries, lse, weights };

struct hand_in {
  attention prompt, future;
  hidden states;
  form as = form::queries;

  explicit hand_in(batch const& in) : prompt(all_rows(in)), future(future_rows(in)), states(hidden_states(in)) {}
};

using any_view = std::variant<kvevict::layer_view<std::int32_t>, kvevict::layer_view<std::byte*>>;

struct any_preset {
  std::string name;
  std::function<void(kvevict::host&, any_view const&, hand_in const&, kvevict::budget const&, kvevict::keep_set&)>
      plan_into;
  std::function<void(kvevict::host&, any_view const&, hand_in const&, kvevict::budget const&, std::vector<float>&)>
      scores;
  std::function<std::int64_t(kvevict::host const&, kvevict::cache_shape const&)> workspace;
  /// The keep set when every score is multiplied by a factor. Integer tables only.
  std::function<kvevict::keep_set(kvevict::host&, any_view const&, hand_in const&, kvevict::budget const&, float)>
      plan_scaled;
  answer (*expected)(question const&);      // null: the reference has no opinion (random)
  std::int32_t first, last, last_permille;  // protected tokens
  bool equal_counts, over_layers;           // over_layers: the budget is exact over the layers, not in each
  bool over_stack;                          // the layers of one view share their budget, by their scores

  [[nodiscard]] kvevict::keep_set plan(kvevict::host& ctx, any_view const& view, hand_in const& in,
                                       kvevict::budget const& b) const {
    kvevict::keep_set out;
    plan_into(ctx, view, in, b, out);
    return out;
  }
  [[nodiscard]] std::int32_t newest(std::int32_t budget) const {
    return std::max(last, (budget * last_permille + 999) / 1000);
  }
  [[nodiscard]] bool unlimited() const { return name == "full"; }
};

std::vector<any_preset> const& presets();

/// The view; where its heads share a table and the preset keeps different numbers of tokens, as one of masks.
template <class View> View for_any(any_preset const& p, View const& v) {
  return v.with_capability({.masked = !p.equal_counts && !v.pages.per_head()});
}

}  // namespace support
