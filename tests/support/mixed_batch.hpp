// SPDX-License-Identifier: Apache-2.0
// Batches as schedulers have them: idle sequences, decoding ones, chunks and prompts in one call.
#pragma once

#include <array>
#include <string>
#include <vector>

#include <kvevict/kernels/host.hpp>

#include <kvevict/policy.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>

#include "support/any_preset.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/placed_rows.hpp"

namespace support {

/// Sequences of so many tokens, of which so many are new.
struct mix {
  std::vector<std::size_t> tokens, fresh;
  bool scattered = false;
};

/// What sequences' states are before: of every float another one.
inline float state_before(std::size_t sequence, int h, int t, int c) {
  return 0.125f * static_cast<float>(sequence) + 0.25f * static_cast<float>(h) + 0.5f * static_cast<float>(t % 9 + c);
}

/// Random layers of sequences that are observed together, or one by one with the same numbers.
struct mixed_batch {
  mix of;
  batch in;
  std::uint64_t seed;

  mixed_batch(mix m, std::uint64_t s, std::size_t D = 8)
      : of(std::move(m)), in(random_batch(s, {.Hq = 4, .H = 2, .D = D, .N = of.tokens, .future = 0})), seed(s) {}

  /// The sequences [first, first + count) as a batch of their own.
  [[nodiscard]] batch part(std::size_t first, std::size_t count) const {
    batch out = in;
    auto const from = static_cast<std::ptrdiff_t>(first), to = static_cast<std::ptrdiff_t>(first + count);
    out.N = {in.N.begin() + from, in.N.begin() + to};
    out.layers = {in.layers.begin() + from, in.layers.begin() + to};
    return out;
  }
  [[nodiscard]] attention rows(std::size_t first, std::size_t count) const {
    batch const some = part(first, count);
    std::vector<std::size_t> from;
    for (std::size_t b = 0; b < count; ++b) from.push_back(some.N[b] - of.fresh[first + b]);
    attention out = rows_of(some, whole_cache(some), from, some.N);
    if (out.q.empty()) out.q.push_back(0), out.lse.push_back(0), out.weights.push_back(0), out.slots = 1;
    for (std::size_t const n : some.N) out.slots = std::max(out.slots, n);
    return out;
  }
};

/// The state of every row, [b][h], after `observe(cache, attention)` has seen the sequences [first, first + count).
using states = std::vector<std::vector<std::vector<float>>>;
template <class Observe>
states states_after(mixed_batch const& m, layouts::layout l, std::int32_t floats, std::size_t first, std::size_t count,
                    Observe observe) {
  batch const in = m.part(first, count);
  auto shape = cache_shape_of(in);
  shape.state_floats = floats, shape.page_size = 8;
  states out(count);
  layouts::with_layout(l, shape, [&](auto& cache) {
    fill(cache, in);
    cache.fill(kvevict::role::state,
               [&](int b, int h, int t, int c) { return state_before(first + static_cast<std::size_t>(b), h, t, c); });
    if (m.of.scattered) cache.view.order = kvevict::row_order::scattered;
    observe(cache, m.rows(first, count));
    for (std::size_t b = 0; b < count; ++b)
      for (std::size_t h = 0; h < in.H; ++h) {
        auto const row = cache.read(kvevict::role::state, static_cast<int>(b), static_cast<int>(h));
        out[b].emplace_back(row.begin(), row.end());
      }
  });
  return out;
}

/// Together as alone, bit for bit, whatever attention is provided as; f(policy, view, rows, form) observes.
template <class Policy, class Observe>
void together_as_alone(mixed_batch const& m, layouts::layout l, Policy const& policy, Observe observe) {
  for (form const as : {form::queries, form::lse, form::weights}) {
    auto const see = [&](auto& cache, attention const& rows) { observe(policy, cache, rows, as); };
    std::int32_t const floats = kvevict::state_floats(policy);
    states const together = states_after(m, l, floats, 0, m.in.B(), see);
    for (std::size_t b = 0; b < m.in.B(); ++b) {
      CAPTURE(m.seed, static_cast<int>(as), static_cast<int>(l), b, m.in.N[b], m.of.fresh[b]);
      states const alone = states_after(m, l, floats, b, 1, see);
      CHECK((together[b] == alone[0]));
      bool changed = false;
      for (std::size_t h = 0; h < m.in.H; ++h)
        for (std::size_t i = 0; i < alone[0][h].size(); ++i)
          changed = changed || alone[0][h][i] != state_before(b, static_cast<int>(h), static_cast<int>(i) / floats,
                                                              static_cast<int>(i) % floats);
      CHECK(changed == (m.of.fresh[b] != 0));
    }
  }
}

/// What f is tried with: idle slots of a captured batch, accepted drafts, chunks beside steps, new prompts.
inline std::vector<mix> mixes() {
  return {{{40, 30, 25}, {0, 1, 3}},
          {{40, 30, 25, 60}, {1, 3, 2, 1}},
          {{40, 0, 30, 50}, {40, 0, 1, 17}},
          {{33, 12, 1, 70}, {33, 12, 1, 1}},
          {{40, 30}, {0, 0}},
          {{20, 40, 30}, {0, 1, 0}, true}};
}

/// A batch of any of them, its rows anywhere.
struct random_mix {
  mixed_batch batch;
  placing place;
  layouts::layout layout;
  form as;
  kvevict::visibility sees;           // all of the past where the numbers at hand, LSE or weights, are of all of it
  std::vector<std::int32_t> padding;  // (B) first tokens, or none

  static random_mix of(std::uint64_t seed) {
    reference::generator random(seed);
    auto const below = [&](std::size_t n) { return random.below(n); };
    mix m;
    m.scattered = below(5) == 0;
    for (std::size_t b = 0, B = 1 + below(5); b < B; ++b) {
      std::size_t const n = below(8) == 0 ? below(3) : 5 + below(70), kind = below(5);
      std::size_t const fresh = kind == 0 ? 0 : kind < 3 ? 1 + below(4) : kind == 3 ? 5 + below(20) : n;
      m.tokens.push_back(n);
      m.fresh.push_back(std::min({fresh, n, m.scattered ? std::size_t{1} : n}));
    }
    std::vector<placing> const places = placings();
    placing const where = below(4) == 0 ? placing{} : places[below(places.size())];
    auto const count = std::size(layouts::all);
    layouts::layout const l = layouts::all[below(count)];
    form const as = std::array<form, 3>{form::queries, form::lse, form::weights}[below(3)];
    random_mix out{mixed_batch(std::move(m), seed), where, l, as, {}, {}};
    if (as == form::queries) out.see_less(random);
    return out;
  }
  /// Windows, chunks and sinks, and padding among the tokens that are not new.
  void see_less(reference::generator& random) {
    auto const below = [&](std::size_t n) { return int32(random.below(n)); };
    if (below(2) == 0) sees.window = 1 + below(30);
    if (below(4) == 0) sees.chunk = 1 + below(30);
    if (below(2) == 0) sees.sinks = below(5);
    if (below(2) == 0 || batch.of.scattered) return;
    for (std::size_t b = 0; b < batch.in.B(); ++b) padding.push_back(below(1 + batch.of.tokens[b] - batch.of.fresh[b]));
  }
  /// Of the sequences from `first` on; `put` says where the context reads them.
  template <class Put> kvevict::visibility sight_of(std::size_t first, Put put) const {
    kvevict::visibility out = sees;
    if (!padding.empty()) out.first_token = put(padding) + first;
    return out;
  }
};

/// What is observed together, from rows wherever they are, is what each sequence gets alone from packed ones;
/// see(policy, cache, rows, mix, first sequence) observes.
template <class Policy, class See> void lies_anywhere(random_mix const& m, Policy const& policy, See see) {
  std::int32_t const floats = kvevict::state_floats(policy);
  CAPTURE(m.batch.seed, static_cast<int>(m.place.how), m.place.heads_first, static_cast<int>(m.as),
          static_cast<int>(m.layout), m.batch.of.scattered, m.batch.of.tokens, m.batch.of.fresh);
  CAPTURE(m.sees.window, m.sees.chunk, m.sees.sinks, m.padding);
  auto const observe = [&](placing const& where, std::size_t first) {
    return [&, where, first](auto& cache, attention const& rows) {
      see(policy, cache, placed_rows(rows, where), m, first);
    };
  };
  states const together = states_after(m.batch, m.layout, floats, 0, m.batch.in.B(), observe(m.place, 0));
  for (std::size_t b = 0; b < m.batch.in.B(); ++b) {
    CAPTURE(b);
    CHECK((together[b] == states_after(m.batch, m.layout, floats, b, 1, observe({}, b))[0]));
  }
}

}  // namespace support
