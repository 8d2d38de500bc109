// SPDX-License-Identifier: Apache-2.0
// The one list of presets that every law runs over, each with the evidence it needs and what the naive reference answers.
//
//   for_each_preset([&](auto const& p) {
//     CAPTURE(p.name);
//     auto keep = plan(ctx, p.policy, p.show(cache.view, rows), {.tokens_per_head = 16});
//   });
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/batch.hpp"
#include "support/layouts.hpp"

namespace support {

using reference::counts;
using reference::rows;

// Small, so that a cache of 60 tokens shows everything.
inline constexpr std::int32_t window = 8, pool = 5, sinks = 2, recent = 5, floor_permille = 200;

enum class needs : std::uint8_t { nothing, prompt, future };

/// What the reference says about one sequence: scores of the evictable tokens (H,M), which those are, and the tokens that stay.
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

/// Attention rows of a batch, as the presets need them.
struct hand_in {
  attention prompt, future;

  explicit hand_in(batch const& in) : prompt(all_rows(in)), future(future_rows(in)) {}
  hand_in(batch const& in, std::size_t last) : prompt(last_rows(in, last)), future(future_rows(in)) {}
};

template <needs What, class Policy> struct preset {
  static constexpr needs what = What;
  char const* name;
  Policy policy;
  answer (*expected)(question const&);  // null: the reference has no opinion (random)
  std::int32_t protected_first = 0, protected_last = 0, protected_last_permille = 0;
  bool over_layers = false;  // the budget is exact over the layers, not in each

  static constexpr bool equal_counts = Policy::equal_counts;
  [[nodiscard]] bool is(char const* other) const { return std::string_view(name) == other; }

  template <class View> auto show(View const& view, hand_in const& in) const {
    if constexpr (What == needs::nothing) return kvevict::contents(view);
    else if constexpr (What == needs::prompt) return kvevict::prompt(view, in.prompt.queries());
    else return kvevict::future(view, in.future.queries()).with_lse(in.future.lse.data(), in.future.lse_stride(), 1);
  }
  [[nodiscard]] std::int32_t last(std::int32_t budget) const { return std::max(protected_last, budget * protected_last_permille / 1000); }
};

namespace expect {

inline reference::snapkv_options snapkv() {
  return {{static_cast<std::size_t>(window), static_cast<std::size_t>(pool), reference::pool::max, reference::reduce::mean, false}, 0, 0};
}
inline reference::ahakv_options ahakv() {
  reference::ahakv_options o;
  o.recent = static_cast<std::size_t>(window);
  return o;
}
inline reference::pyramid_options pyramid(question const& q) { return {q.layer, q.layers, 20, reference::rounding::exact}; }
inline reference::ada_options ada() { return {floor_permille, reference::rounding::exact, false}; }

/// Scores and keep set; short rows are kept whole and have no scores.
template <class Scores> answer made(question const& q, reference::protection const& p, index_rows keep, Scores scores) {
  reference::evictable const where(q.N, p);
  return {q.N <= q.budget ? rows{} : reference::cut(scores(), where), where, std::move(keep)};
}
inline answer windowed(question const& q, index_rows keep) {
  return made(q, {0, static_cast<std::size_t>(window), 0}, std::move(keep), [&] { return reference::window_scores(q.prompt(), snapkv().score); });
}

}  // namespace expect

template <class F> void for_each_preset(F&& f) {
  namespace p = kvevict::presets;
  auto const S = static_cast<std::size_t>(sinks), R = static_cast<std::size_t>(recent);
  static_cast<void>(S), static_cast<void>(R);
  auto const add = [&]<needs What, class Policy>(std::integral_constant<needs, What>, char const* name, Policy policy, answer (*expected)(question const&),
                                                 std::int32_t first, std::int32_t last, std::int32_t share, bool over_layers = false) {
    f(preset<What, Policy>{name, policy, expected, first, last, share, over_layers});
  };
  constexpr std::integral_constant<needs, needs::nothing> nothing{};
  constexpr std::integral_constant<needs, needs::prompt> prompt{};
  constexpr std::integral_constant<needs, needs::future> future{};

  add(nothing, "full", p::full(), [](question const& q) { return answer{{}, {q.N, {}}, reference::identity(q.all.H(), q.N)}; }, 0, 0, 0);
  add(nothing, "random", p::random({.seed = 7, .sinks = sinks, .recent = recent}), nullptr, sinks, recent, 0);
  add(nothing, "streaming_llm", p::streaming_llm({.sinks = sinks}), [](question const& q) {
    return answer{{}, {q.N, {2, q.budget - 2, 0}}, reference::keep_streaming(q.all.H(), q.N, q.budget, 2)};
  }, sinks, 0, 0);
  add(prompt, "h2o", p::h2o(), [](question const& q) {
    return expect::made(q, {0, q.budget / 2, 0}, reference::keep_h2o(q.prompt(), q.budget), [&] { return reference::column_sums(q.prompt()); });
  }, 0, 0, 500);
  add(prompt, "snapkv", p::snapkv({.window = window, .pool = pool}), [](question const& q) {
    return expect::windowed(q, reference::keep_snapkv(q.prompt(), q.budget, expect::snapkv()));
  }, 0, window, 0);
  add(prompt, "ahakv", p::ahakv({.recent = window}), [](question const& q) {
    return expect::made(q, {0, static_cast<std::size_t>(window), 0}, reference::keep_ahakv(q.prompt(), q.budget, expect::ahakv()),
                        [&] { return reference::ahakv_scores(q.prompt(), q.budget, expect::ahakv()); });
  }, 0, window, 0);
  add(prompt, "pyramidkv", p::pyramidkv({.window = window, .pool = pool}), [](question const& q) {
    return expect::windowed(q, reference::keep_pyramidkv(q.prompt(), q.budget, expect::snapkv(), expect::pyramid(q)));
  }, 0, window, 0, true);
  add(prompt, "ada_snapkv", p::ada_snapkv({.window = window, .pool = pool, .floor_permille = floor_permille}), [](question const& q) {
    return expect::windowed(q, reference::keep_ada_snapkv(q.prompt(), q.budget, expect::snapkv(), expect::ada()));
  }, 0, window, 0);
  add(prompt, "ada_pyramidkv", p::ada_pyramidkv({.window = window, .pool = pool, .floor_permille = floor_permille}), [](question const& q) {
    return expect::windowed(q, reference::keep_ada_pyramidkv(q.prompt(), q.budget, expect::snapkv(), expect::pyramid(q), expect::ada()));
  }, 0, window, 0, true);
  add(future, "oracle", p::oracle({.rows = 6, .sinks = sinks, .recent = recent}), [](question const& q) {
    reference::protection const both{2, 5, 0};
    return expect::made(q, both, reference::keep_oracle(q.all, q.N, q.budget, both), [&] { return reference::oracle_scores(q.all, q.N); });
  }, sinks, recent, 0);
}

/// Fills K and V of a cache with the batch's first tokens; positions are there already.
template <class Cache> void fill(Cache& cache, batch const& in) {
  auto const from = [&](reference::cube reference::layer::*what) {
    return [&in, what](int b, int h, int t, int d) {
      return (in.layers[static_cast<std::size_t>(b)].*what).at(static_cast<std::size_t>(h), static_cast<std::size_t>(t), static_cast<std::size_t>(d));
    };
  };
  cache.fill(from(&reference::layer::keys), from(&reference::layer::values));
}

inline layouts::cache_shape cache_shape_of(batch const& in) {
  layouts::cache_shape out;
  out.lengths.clear();
  for (std::size_t const n : in.N) out.lengths.push_back(int32(n));
  out.heads = int32(in.H), out.head_dim = int32(in.D);
  out.page_size = 16;
  return out;
}

/// f(cache) with the batch in a cache of that layout.
template <class F> void with_cache(layouts::layout l, layouts::cache_shape const& shape, batch const& in, F&& f) {
  layouts::with_layout(l, shape, [&](auto& cache) {
    fill(cache, in);
    f(cache);
  });
}
template <class F> void with_cache(batch const& in, F&& f) { with_cache(layouts::layout::head_pages, cache_shape_of(in), in, f); }

inline index_rows rows_of_sequence(kvevict::keep_set const& keep, std::size_t b) {
  index_rows out;
  for (std::int32_t h = 0; h < keep.heads; ++h) {
    auto const row = keep(int32(b), h);
    out.emplace_back(row.begin(), row.end());
  }
  return out;
}

}  // namespace support
