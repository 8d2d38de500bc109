// SPDX-License-Identifier: Apache-2.0
// The one list of presets that every law runs over, each with the evidence it needs and what the naive reference
// answers.
//
// Laws use it through any_preset.hpp, which hides the types, so that they compile once.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/any_preset.hpp"
#include "support/law_evidence.hpp"
#include "support/reference_chunks.hpp"
#include "support/reference_later.hpp"
#include "support/reference_leverage.hpp"
#include "support/reference_outputs.hpp"
#include "support/reference_shares.hpp"

namespace support {

enum class needs : std::uint8_t { nothing, prompt, future, features, moments };

template <needs What, class Policy> struct preset {
  static constexpr needs what = What;
  char const* name;
  Policy policy;
  answer (*expected)(question const&);  // null: the reference has no opinion (random)
  std::int32_t protected_first = 0, protected_last = 0, protected_last_permille = 0;
  bool over_layers = false;  // the budget is exact over the layers, not in each

  /// f(evidence) with the evidence that the policy needs, in the form that the engine has.
  template <class View, class F> void show(View const& view, hand_in const& in, F&& f) const {
    if constexpr (What == needs::nothing)
      f(kvevict::contents(view));
    else if constexpr (What == needs::moments)
      f(kvevict::contents(law_moments::unturned(view)).with_query_moments(law_moments(view).on_host()));
    else if constexpr (What == needs::future)
      f(kvevict::future(view, in.future.queries()).with_lse(in.future.lse.data(), in.future.lse_stride(), 1));
    else if constexpr (What == needs::features)
      f(kvevict::prompt(view, in.states.rows()));
    else if (in.as == form::queries)
      f(kvevict::prompt(view, in.prompt.queries()).with_output(law_output(view).on_host()));
    else if (in.as == form::lse)
      f(kvevict::prompt(view, in.prompt.queries())
            .with_lse(in.prompt.lse.data(), in.prompt.lse_stride(), 1)
            .with_output(law_output(view).on_host()));
    else
      f(kvevict::prompt(view, in.prompt.rows()).with_output(law_output(view).on_host()));
  }
};

namespace expect {

inline reference::snapkv_options snapkv() {
  return {{static_cast<std::size_t>(window), static_cast<std::size_t>(pool), reference::pool::max,
           reference::reduce::mean, false},
          0,
          0};
}
inline reference::window_options last_row() { return {1, 1, reference::pool::max, reference::reduce::mean, false}; }
/// As many rows as protect keeps at least, so that the window's own tokens are never candidates.
inline reference::window_options last_rows(std::size_t count) {
  return {count, 1, reference::pool::max, reference::reduce::mean, false};
}
/// One row for all heads.
inline rows mean_of_heads(rows const& scores) {
  reference::row sum(scores.front().size(), 0.0);
  for (reference::row const& r : scores)
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += r[j] / static_cast<double>(scores.size());
  return rows(scores.size(), sum);
}
inline reference::ahakv_options ahakv() {
  reference::ahakv_options o;
  o.recent = static_cast<std::size_t>(window);
  return o;
}
inline reference::pyramid_options pyramid(question const& q) {
  return {q.layer, q.layers, 20, reference::rounding::exact};
}
inline reference::ada_options ada() { return {floor_permille, reference::rounding::exact, false}; }

/// Scores and keep set; short rows are kept whole and have no scores.
template <class Scores> answer made(question const& q, reference::protection const& p, index_rows keep, Scores scores) {
  reference::evictable const where(q.N, p);
  return {q.N <= q.budget ? rows{} : reference::cut(scores(), where), where, std::move(keep)};
}
/// Scores behind which the window is protected; the same count for all heads, or heads that share their budget.
template <class Scores> answer by_window(question const& q, Scores scores, bool adaptive = false) {
  reference::protection const last{0, static_cast<std::size_t>(window), 0};
  reference::evictable const where(q.N, last);
  index_rows keep = q.N <= q.budget ? reference::identity(q.all.H(), q.N)
                    : adaptive      ? reference::keep_ada(reference::cut(scores(), where), q.budget, where, ada())
                                    : reference::keep_uniform(reference::cut(scores(), where), q.budget, where);
  return made(q, last, std::move(keep), scores);
}
/// Two sinks, and the newest quarter of the budget.
inline reference::protection newest_quarter(question const& q) {
  return {2, std::max<std::size_t>(1, (q.budget + 3) / 4), 0};
}
/// CriticalKV without ε, for even heads or Ada's.
inline answer in_halves(question const& q, bool adaptive) {
  reference::protection const last{0, static_cast<std::size_t>(window), 0};
  reference::evictable const where(q.N, last);
  rows const scores = reference::cut(reference::window_scores(q.prompt(), snapkv().score), where);
  if (q.N <= q.budget) return made(q, last, reference::identity(q.all.H(), q.N), [&] { return scores; });
  reference::layer const in = q.prompt();
  law_output const block(static_cast<std::int64_t>(in.D()));
  reference::projection wo{in.Hq() * in.D(), law_output::outputs, {}};
  for (std::size_t i = 0; i < in.Hq() * in.D() * law_output::outputs; ++i)
    wo.data.push_back(static_cast<double>(block.weights[i]));
  rows weighed = scores;
  rows const norms = reference::projected_norms(in, wo);
  for (std::size_t h = 0; h < norms.size(); ++h)
    for (std::size_t j = 0; j < weighed[h].size(); ++j) weighed[h][j] *= norms[h][j];
  index_rows const even =
      adaptive ? reference::keep_ada(scores, q.budget, where, ada()) : reference::keep_uniform(scores, q.budget, where);
  reference::counts each;
  for (auto const& r : even) each.push_back(r.size() - last.recent);
  return made(q, last, reference::keep_in_halves(scores, weighed, each, where), [&] { return scores; });
}
/// What f(layer, moments of all query heads, begin, end) makes of the tokens between two sinks and five recent tokens,
/// by the laws' moments. Short rows are kept whole, and have no scores.
template <class F> rows by_moments(question const& q, F f) {
  if (q.N <= q.budget) return rows(q.all.H());
  reference::layer const in = q.prompt();
  law_moments const of(static_cast<std::int32_t>(in.D()));
  reference::moments m;
  for (std::size_t a = 0; a < in.D(); ++a) {
    m.mean.push_back(static_cast<double>(of.mean[a]));
    m.covariance.emplace_back();
    for (std::size_t b = 0; b < in.D(); ++b)
      m.covariance[a].push_back(static_cast<double>(of.covariance[a * in.D() + b]));
  }
  std::size_t const begin = std::min<std::size_t>(2, in.N()),
                    end = std::max(begin, in.N() - std::min<std::size_t>(5, in.N()));
  rows out = f(in, std::vector<reference::moments>(in.H(), m), begin, end);
  for (reference::row& r : out) r.insert(r.begin(), begin, 0.0), r.resize(in.N(), 0.0);
  return out;
}
inline answer windowed(question const& q, index_rows keep) {
  return made(q, {0, static_cast<std::size_t>(window), 0}, std::move(keep),
              [&] { return reference::window_scores(q.prompt(), snapkv().score); });
}

/// Of scores of all tokens, between the sinks and the recent tokens.
inline answer both_ends(question const& q, rows const& scores) {
  reference::protection const both{2, 5, 0};
  return made(q, both, reference::keep_by(scores, q.N, q.budget, both), [&] { return scores; });
}

}  // namespace expect

template <class F> void for_each_preset(F&& f) {
  namespace p = kvevict::presets;
  auto const add = [&]<needs What, class Policy>(std::integral_constant<needs, What>, char const* name, Policy policy,
                                                 answer (*expected)(question const&), std::int32_t first,
                                                 std::int32_t last, std::int32_t share, bool over_layers = false) {
    f(preset<What, Policy>{name, policy, expected, first, last, share, over_layers});
  };
  constexpr std::integral_constant<needs, needs::nothing> nothing{};
  constexpr std::integral_constant<needs, needs::prompt> prompt{};
  constexpr std::integral_constant<needs, needs::future> future{};
  constexpr std::integral_constant<needs, needs::features> features{};
  constexpr std::integral_constant<needs, needs::moments> moments{};

  add(
      nothing, "full", p::full(),
      [](question const& q) {
        return answer{{}, {q.N, {}}, reference::identity(q.all.H(), q.N)};
      },
      0, 0, 0);
  add(nothing, "random", p::random({.seed = 7, .sinks = sinks, .recent = recent}), nullptr, sinks, recent, 0);
  add(
      nothing, "streaming_llm", p::streaming_llm({.sinks = sinks}),
      [](question const& q) {
        return answer{{}, {q.N, {2, q.budget - 2, 0}}, reference::keep_streaming(q.all.H(), q.N, q.budget, 2)};
      },
      sinks, 0, 0);
  add(
      nothing, "keydiff", p::keydiff({.sinks = sinks, .recent = recent}),
      [](question const& q) {
        rows const scores = reference::key_diversity(q.prompt());
        reference::protection const both{2, 5, 0};
        return expect::made(q, both, reference::keep_by(scores, q.N, q.budget, both), [&] { return scores; });
      },
      sinks, recent, 0);
  add(
      nothing, "knorm", p::knorm({.sinks = sinks, .recent = recent}),
      [](question const& q) { return expect::both_ends(q, reference::key_norm(q.prompt())); }, sinks, recent, 0);
  add(
      nothing, "manifoldkv", p::manifoldkv({.sinks = sinks, .recent = recent, .window = 16}),
      [](question const& q) { return expect::both_ends(q, reference::key_distance(q.prompt(), 16)); }, sinks, recent,
      0);
  add(
      nothing, "leverage", p::leverage({.sinks = sinks, .recent = recent, .keys = kvevict::score::keys::cached}),
      [](question const& q) { return expect::both_ends(q, reference::leverage(q.prompt(), 0.01)); }, sinks, recent, 0);
  add(
      moments, "expected_attention", p::expected_attention({.sinks = sinks, .recent = recent}),
      [](question const& q) {
        return expect::both_ends(q, expect::by_moments(q, [](auto const& in, auto const& m, auto begin, auto end) {
                                   return reference::expected_attention(in, m, begin, end, true, 0, true);
                                 }));
      },
      sinks, recent, 0);
  add(
      moments, "capkv", p::capkv({.sinks = sinks, .recent = recent}),
      [](question const& q) {
        return expect::both_ends(q, expect::by_moments(q, [](auto const& in, auto const& m, auto begin, auto end) {
                                   return reference::value_capacity(in, m, begin, end, 5);
                                 }));
      },
      sinks, recent, 0);
  add(
      nothing, "lagkv", p::lagkv({.lag = recent, .sinks = sinks}),
      [](question const& q) {
        rows const scores = reference::relative_spread(q.prompt(), 2, 5);
        reference::protection const both{2, 5, 0};
        return expect::made(q, both, reference::keep_by(scores, q.N, q.budget, both), [&] { return scores; });
      },
      sinks, recent, 0);
  add(
      nothing, "distinct_keys",
      p::distinct_keys({.sinks = sinks, .floor_permille = floor_permille, .keys = kvevict::score::keys::cached}),
      [](question const& q) {
        reference::protection const quarter = expect::newest_quarter(q);
        rows const scores = reference::key_diversity(q.prompt());
        reference::evictable const where(q.N, quarter);
        index_rows keep = q.N <= q.budget
                              ? reference::identity(q.all.H(), q.N)
                              : reference::keep_ada(reference::cut(scores, where), q.budget, where, expect::ada());
        return expect::made(q, quarter, std::move(keep), [&] { return scores; });
      },
      sinks, 1, 250);
  // of one layer ours and Ada-KV's heads are the same, and so are both forms of DefensiveKV; see stack_presets.hpp
  p::distinct_and_attended_options mixture;
  mixture.window = 2, mixture.distinct_permille = 700, mixture.recent_permille = 250;
  mixture.sinks = sinks, mixture.floor_permille = floor_permille, mixture.keys = kvevict::score::keys::cached;
  auto const mixed = [](question const& q) {
    reference::protection const quarter = expect::newest_quarter(q);
    rows const distinct = reference::key_diversity(q.prompt());
    index_rows keep = reference::identity(q.all.H(), q.N);
    if (q.N > q.budget)
      keep = reference::keep_in_turn({distinct, reference::largest_attention(q.prompt(), 2, 1, quarter.recent)},
                                     {700, 300}, q.budget, {q.N, quarter}, floor_permille);
    return expect::made(q, quarter, std::move(keep), [&] { return distinct; });
  };
  add(prompt, "distinct_and_attended", p::distinct_and_attended(mixture), mixed, sinks, 1, 250);
  add(
      prompt, "h2o", p::h2o(),
      [](question const& q) {
        return expect::made(q, {0, (q.budget + 1) / 2, 0}, reference::keep_h2o(q.prompt(), q.budget),
                            [&] { return reference::column_sums(q.prompt()); });
      },
      0, 0, 500);
  add(
      prompt, "snapkv", p::snapkv({.window = window, .pool = pool}),
      [](question const& q) {
        return expect::windowed(q, reference::keep_snapkv(q.prompt(), q.budget, expect::snapkv()));
      },
      0, window, 0);
  add(
      prompt, "tova", p::tova(),
      [](question const& q) {
        reference::protection const newest{0, 1, 0};
        rows const scores = expect::mean_of_heads(reference::window_scores(q.prompt(), expect::last_row()));
        return expect::made(q, newest, reference::keep_by(scores, q.N, q.budget, newest), [&] { return scores; });
      },
      0, 1, 0);
  add(
      prompt, "chunkkv", p::chunkkv({.window = window, .chunk = 6, .peak = 2}),
      [](question const& q) {
        reference::protection const newest{0, static_cast<std::size_t>(window), 0};
        rows const scores = expect::mean_of_heads(reference::window_scores(
            q.prompt(), {newest.recent, 1, reference::pool::max, reference::reduce::mean, false}));
        rows all = scores;
        for (reference::row& r : all) r.resize(q.N, 0.0);
        return expect::made(q, newest, reference::keep_chunks(all, q.N, q.budget, newest, 6, 2), [&] { return all; });
      },
      0, window, 0);
  add(
      prompt, "ahakv", p::ahakv({.recent = window}),
      [](question const& q) {
        return expect::made(q, {0, static_cast<std::size_t>(window), 0},
                            reference::keep_ahakv(q.prompt(), q.budget, expect::ahakv()),
                            [&] { return reference::ahakv_scores(q.prompt(), q.budget, expect::ahakv()); });
      },
      0, window, 0);
  add(
      prompt, "dropkv", p::dropkv({.window = window, .pool = pool}),
      [](question const& q) {
        return expect::by_window(q, [&] { return reference::output_change(q.prompt(), window, pool); });
      },
      0, window, 0);
  p::defensivekv_options const defensive{window, pool, floor_permille};
  auto const defended = [](question const& q) {
    return expect::by_window(
        q, [&] { return reference::largest_attention(q.prompt(), window, pool, window); }, true);
  };
  add(prompt, "defensivekv", p::defensivekv(defensive), defended, 0, window, 0);
  add(prompt, "layer_defensivekv", p::layer_defensivekv(defensive), defended, 0, window, 0);
  add(
      prompt, "cake", p::cake({.window = window, .pool = pool}),
      [](question const& q) {
        return expect::by_window(q, [&] { return reference::varying_attention(q.prompt(), window, pool, 200); });
      },
      0, window, 0);
  add(
      prompt, "criticalkv", p::criticalkv({.window = window, .pool = pool, .epsilon = 0}),
      [](question const& q) { return expect::in_halves(q, false); }, 0, window, 0);
  add(
      prompt, "ada_criticalkv",
      p::ada_criticalkv({.window = window, .pool = pool, .floor_permille = floor_permille, .epsilon = 0}),
      [](question const& q) { return expect::in_halves(q, true); }, 0, window, 0);
  add(
      prompt, "lava", p::lava({.window = window, .pool = pool, .floor_permille = floor_permille}),
      [](question const& q) {
        auto const scores = [&] {
          return reference::bounded_by_values(q.prompt(), reference::window_scores(q.prompt(), expect::snapkv().score));
        };
        return expect::by_window(q, scores, true);
      },
      0, window, 0);
  add(
      prompt, "rkv", p::rkv({.window = window, .pool = pool}),
      [](question const& q) {
        return expect::by_window(q, [&] {
          return reference::less_redundant(q.prompt(), reference::window_scores(q.prompt(), expect::snapkv().score),
                                           0.07f);
        });
      },
      0, window, 0);
  add(
      prompt, "pyramidkv", p::pyramidkv({.window = window, .pool = pool}),
      [](question const& q) {
        return expect::windowed(q,
                                reference::keep_pyramidkv(q.prompt(), q.budget, expect::snapkv(), expect::pyramid(q)));
      },
      0, window, 0, true);
  add(
      prompt, "ada_snapkv", p::ada_snapkv({.window = window, .pool = pool, .floor_permille = floor_permille}),
      [](question const& q) {
        return expect::windowed(q, reference::keep_ada_snapkv(q.prompt(), q.budget, expect::snapkv(), expect::ada()));
      },
      0, window, 0);
  add(
      prompt, "ada_pyramidkv", p::ada_pyramidkv({.window = window, .pool = pool, .floor_permille = floor_permille}),
      [](question const& q) {
        return expect::windowed(q, reference::keep_ada_pyramidkv(q.prompt(), q.budget, expect::snapkv(),
                                                                 expect::pyramid(q), expect::ada()));
      },
      0, window, 0, true);
  add(
      future, "oracle", p::oracle({.rows = 6, .sinks = sinks, .recent = 1}),
      [](question const& q) {
        reference::protection const both{2, 1, 0};
        return expect::made(q, both, reference::keep_oracle(q.all, q.N, q.budget, both),
                            [&] { return reference::oracle_scores(q.all, q.N); });
      },
      sinks, 1, 0);
  // Every flag is 1, so that the cap decides and the laws of budgets hold; other thresholds are the business of
  // unit/policy/gate_test.cpp.
  add(
      features, "attention_gate",
      p::attention_gate(law_gate().weights(), {.threshold = 0, .sinks = sinks, .recent = recent}),
      [](question const& q) {
        reference::protection const both{2, 5, 0};
        auto const p = reference::gate_of_heads(
            reference::gate_flags(law_gate().gate, hidden_states(q.all, q.N), reference::gate_sight::causal),
            q.all.H());
        reference::evictable const where(q.N, both);
        index_rows keep = q.N <= q.budget ? reference::identity(q.all.H(), q.N)
                                          : reference::keep_uniform(reference::cut(p, where), q.budget, where);
        return expect::made(q, both, std::move(keep), [&] { return p; });
      },
      sinks, recent, 0);
}

}  // namespace support
