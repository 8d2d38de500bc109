// SPDX-License-Identifier: Apache-2.0
// Turns of growth and eviction over all layers of a model, and what every row must keep in them, naively.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/presets.hpp"
#include "support/random.hpp"
#include "support/reference_budgets.hpp"

namespace support::turns {

/// A score for every evidence: a hash, so that budgets alone decide how many tokens stay.
struct noise {
  std::uint64_t seed = 0;
  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const&, kvevict::score_rows& out) const {
    kvevict::kernels::each_token(ctx, out, hash{seed});
  }
  struct hash {
    std::uint64_t seed;
    constexpr void operator()(kvevict::row const& in, std::int64_t j, float& x) const {
      auto z = seed + static_cast<std::uint64_t>((in.sequence * 31 + in.head) * 4099 + j) * 0x9e3779b97f4a7c15u;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      x = static_cast<float>((z ^ (z >> 27)) >> 40) * 0x1p-24f;
    }
  };
};

/// How the layers are planned: as one view of all; one by one, told all lengths; one by one.
enum class form : std::uint8_t { stack, told, alone };
inline constexpr form forms[] = {form::stack, form::told, form::alone};

struct shape {
  std::int32_t L = 1, S = 1, H = 1;
  std::int32_t room = 0;  // of a row

  [[nodiscard]] std::size_t at(std::int32_t l, std::int32_t s, std::int32_t h) const {
    return static_cast<std::size_t>((l * S + s) * H + h);
  }
};

/// Keys of one float, which nobody reads: budgets look at lengths alone. `keys`: (layers, S, H, room) floats.
inline kvevict::layer_view<> view_of(shape const& m, std::int32_t const* lengths, std::int32_t layers,
                                     std::int32_t const* keys) {
  kvevict::layer_view<> v;
  v.pages.sequences = layers * m.S, v.pages.heads = m.H, v.pages.page_size = m.room, v.pages.columns = 1;
  v.pages.layers = layers, v.pages.head_stride = 1;
  v.lengths = {lengths, m.H, 1};
  kvevict::component k;
  std::int64_t const row = std::int64_t{m.room} * 4;
  k.rows.base = reinterpret_cast<std::byte*>(const_cast<std::int32_t*>(keys));
  k.rows.page_count = m.S, k.rows.run_bytes = 4, k.rows.slot_stride = 4, k.rows.head_stride = row;
  k.rows.page_stride = row * m.H, k.rows.layer_stride = row * m.H * m.S;
  k.what = kvevict::role::k, k.type = kvevict::dtype::f32;
  return v.with(k);
}

/// Which budgets are moved, of a policy.
struct kind {
  bool over_heads, over_layers, cap, unlimited;
  std::int32_t front, recent, recent_permille, beta;
  bool by_scores = false;  // these divide the budget of the layers of a view

  template <class Policy> static kind of(Policy const& p) {
    constexpr bool stacked = Policy::budgets == kvevict::sharing::stack;
    kind out{Policy::budgets == kvevict::sharing::heads || stacked,
             false,
             Policy::budgets == kvevict::sharing::cap,
             std::is_same_v<std::remove_cvref_t<decltype(p.layers)>, kvevict::layers::unlimited>,
             p.protect.sinks,
             p.protect.recent,
             p.protect.recent_permille,
             1};
    out.by_scores = stacked || kvevict::planning::after_scores<decltype(p.layers)>();
    if constexpr (requires { p.layers.beta; }) out.over_layers = true, out.beta = p.layers.beta;
    return out;
  }
  [[nodiscard]] std::int64_t ends(std::int64_t budget) const {
    std::int64_t const share =
        std::max<std::int64_t>(0, std::min<std::int64_t>((budget * recent_permille + 999) / 1000, budget - front));
    return front + std::max<std::int64_t>(recent, share);
  }
};

/// Tokens of the parts of a unit: its line, cut to what they hold; what is left goes one by one, largest remainder
/// first, round after round.
inline std::vector<std::int64_t> of_layers(std::vector<std::int64_t> const& held, std::int64_t longest,
                                           std::int64_t budget, std::int64_t heads, kind const& k, bool bent) {
  auto const L = static_cast<std::int64_t>(held.size());
  std::int64_t const fixed = std::min(longest, k.ends(budget)), base = budget - fixed;
  if (L == 1) return {std::min(held[0], budget * heads)};
  // every number over β·(L−1)
  std::int64_t hi = (2 * k.beta - 1) * base, lo = base;
  if (bent && hi > (longest - fixed) * k.beta) hi = (longest - fixed) * k.beta, lo = 2 * base * k.beta - hi;
  std::vector<std::int64_t> numerators;
  for (std::int64_t l = 0; l < L; ++l) numerators.push_back(hi * (L - 1) - (hi - lo) * l);
  std::int64_t const den = k.beta * (L - 1);
  auto const line = reference::largest_remainder(numerators, den, static_cast<std::size_t>(L * base),
                                                 reference::counts(held.size(), std::size_t{1} << 40));
  reference::index_row order = reference::first_indices(held.size());
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return numerators[a] % den > numerators[b] % den; });
  std::vector<std::int64_t> out;
  std::int64_t left = L * budget * heads;
  for (std::size_t l = 0; l < held.size(); ++l) {
    out.push_back(std::min(held[l], (static_cast<std::int64_t>(line[l]) + fixed) * heads));
    left -= out.back();
  }
  for (bool given = bent; given;) {
    given = false;
    for (std::size_t const l : order)
      if (left > 0 && out[l] < held[l]) ++out[l], --left, given = true;
  }
  return out;
}

/// What a row keeps, or, where heads share, all heads of the layer: (L) of sequence s, head h; where scores divide it,
/// one number of all layers.
inline std::vector<std::int64_t> expected(kind const& k, form how, shape const& m, std::vector<std::int32_t> const& N,
                                          std::int32_t s, std::int32_t h, std::int64_t budget) {
  std::int32_t const first = k.over_heads ? 0 : h, heads = k.over_heads ? m.H : 1;
  std::vector<std::int64_t> held, longest, out;
  for (std::int32_t l = 0; l < m.L; ++l) {
    held.push_back(0), longest.push_back(0);
    for (std::int32_t i = first; i < first + heads; ++i) {
      std::int64_t const n = N[m.at(l, s, i)];
      held.back() += n, longest.back() = std::max(longest.back(), n);
    }
  }
  std::int64_t const all = std::accumulate(held.begin(), held.end(), std::int64_t{0}),
                     most = *std::max_element(longest.begin(), longest.end());
  if (k.unlimited) return held;
  if (k.by_scores && how == form::stack) return {std::min(all, m.L * budget * heads)};  // of all layers together
  if (!k.over_layers) {
    for (std::int64_t const n : held) out.push_back(std::min(n, budget * heads));
    return out;
  }
  if (how != form::alone) return all <= m.L * budget * heads ? held : of_layers(held, most, budget, heads, k, true);
  return of_layers(held, std::int64_t{1} << 31, budget, heads, k, false);
}

/// 20 turns of one policy. plan(view, budget) → the host's keep set; `put(vector)` where the context can read it.
template <class Policy, class Plan, class Put>
void run(Policy const& policy, std::uint64_t seed, form how, Put put, Plan plan) {
  reference::generator random(seed);
  shape m{1 + static_cast<std::int32_t>(random.below(6)), 1 + static_cast<std::int32_t>(random.below(3)),
          1 + static_cast<std::int32_t>(random.below(4))};
  kind const k = kind::of(policy);
  std::vector<std::int32_t> N(m.at(m.L, 0, 0));
  bool const ragged = random.below(3) != 0;
  for (std::int32_t& n : N) n = ragged ? static_cast<std::int32_t>(random.below(90)) : 40;
  std::vector<std::int32_t> budgets;  // of sequences of one layer
  for (std::int32_t s = 0; s < m.S; ++s)
    budgets.push_back(static_cast<std::int32_t>(k.ends(0)) + 1 + static_cast<std::int32_t>(random.below(40)));
  for (int turn = 0; turn < 20; ++turn) {
    CAPTURE(seed, static_cast<int>(how), turn, m.L, m.S, m.H, N, budgets);
    m.room = 1 + *std::max_element(N.begin(), N.end());
    std::vector<std::int32_t> kept(N.size());
    auto const* const keys = put(std::vector<std::int32_t>(N.size() * static_cast<std::size_t>(m.room)));
    auto const take = [&](kvevict::keep_set const& keep, std::int32_t first, std::int32_t layers) {
      for (std::int32_t b = 0; b < layers * m.S; ++b)
        for (std::int32_t h = 0; h < m.H; ++h) {
          kept[m.at(first, b, h)] = static_cast<std::int32_t>(keep(b, h).size);
          auto const row = keep(b, h);
          std::int32_t const n = N[m.at(first, b, h)];
          if (n > 0 && !row.empty() && !k.unlimited) CHECK(row[row.size - 1] == n - 1);  // the newest stays
          CHECK((n == 0 || !row.empty()));
        }
    };
    if (how == form::stack) {
      std::vector<std::int32_t> each;
      for (std::int32_t l = 0; l < m.L; ++l) each.insert(each.end(), budgets.begin(), budgets.end());
      take(plan(view_of(m, put(N), m.L, keys), {.layer_count = m.L, .per_sequence = put(each)}), 0, m.L);
    } else {
      auto const* const lengths = put(N);
      for (std::int32_t l = 0; l < m.L; ++l) {
        kvevict::budget ask{.layer = l, .layer_count = m.L, .per_sequence = put(budgets)};
        if (how == form::told) ask.lengths = {lengths, m.H, std::int64_t{m.S} * m.H, 1};
        take(plan(view_of(m, lengths + m.at(l, 0, 0), 1, keys), ask), l, 1);
      }
    }
    for (std::int32_t s = 0; s < m.S; ++s) {
      std::int64_t sum = 0, held = 0;
      std::int64_t const b = budgets[static_cast<std::size_t>(s)];
      for (std::int32_t h = 0; h < m.H; ++h) {
        auto const want = expected(k, how, m, N, s, h, b);
        std::int64_t together = 0;
        for (std::int32_t l = 0; l < m.L; ++l) {
          std::int64_t got = 0;
          for (std::int32_t i = k.over_heads ? 0 : h; i < (k.over_heads ? m.H : h + 1); ++i) {
            got += kept[m.at(l, s, i)];
            CHECK(kept[m.at(l, s, i)] <= N[m.at(l, s, i)]);
          }
          CAPTURE(l, s, h);
          together += got;
          if (want.size() > 1 || m.L == 1) CHECK(got == want[static_cast<std::size_t>(l)]);
          sum += kept[m.at(l, s, h)], held += N[m.at(l, s, h)];
        }
        CHECK(together == std::accumulate(want.begin(), want.end(), std::int64_t{0}));
      }
      if (!k.unlimited) CHECK(sum <= std::int64_t{m.L} * m.H * b);
      if (k.over_heads && k.over_layers && how != form::alone)
        CHECK(sum == std::min(held, std::int64_t{m.L} * m.H * b));
    }
    N = kept;
    for (std::int32_t l = 0; l < m.L; ++l)  // every row of a sequence sees the same tokens come, but for other heads'
      for (std::int32_t s = 0; s < m.S; ++s)
        for (std::int32_t h = 0; h < m.H; ++h) {
          reference::generator grown(seed * 1000 + static_cast<std::uint64_t>(turn * 8 + s));
          std::int32_t& n = N[m.at(l, s, h)];
          n = std::min(n + static_cast<std::int32_t>(grown.below(turn % 5 == 4 ? 60 : 6)), 400);
        }
  }
}

template <class F> void for_each_policy(F f) {
  for_each_preset([&](auto const& p) {
    auto const policy = p.policy.with(noise{17});
    if constexpr (kvevict::stages::says_one_set<decltype(policy.heads)>)
      f(p.name, policy.with(kvevict::heads::uniform{}));  // heads are ragged here, and cannot keep one set
    else if constexpr (std::is_same_v<decltype(policy.layers), kvevict::layers::dispersion>)
      f(p.name, policy.with(kvevict::layers::entropy{}));  // there is no attention here; the division is the same
    else
      f(p.name, policy);
  });
}

}  // namespace support::turns
