// SPDX-License-Identifier: Apache-2.0
// Budgets from fixed tables: layers by units, heads within a layer, naively, for every context.
#pragma once

#include <kvevict/heads/table.hpp>
#include <kvevict/layers/table.hpp>

#include "support/stack_scores.hpp"

namespace support::share_tables {

/// put(vector) → memory of the context; plan(policy, view, budget) → the host's keep set.
template <class Put, class Plan> void check(std::uint64_t seed, Put put, Plan plan) {
  auto q = stack_scores::random_question(seed);
  std::int32_t const budget = q.budgets[0];
  reference::generator random(seed + 5);
  std::vector<std::int32_t> of_heads, of_layers;
  for (std::int32_t l = 0; l < q.m.L; ++l) {
    of_layers.push_back(0);
    for (std::int32_t h = 0; h < q.m.H; ++h)
      of_heads.push_back(random.below(4) == 0 ? 0 : int32(random.below(1000))), of_layers.back() += of_heads.back();
  }
  auto view = q.m.view(put);
  if (q.scattered) view = view.with_order(kvevict::row_order::scattered);
  auto const policy = kvevict::policy{stack_scores::given{put(q.scores), q.m.room}, q.protects()}
                          .with(kvevict::layers::table{put(of_layers), q.m.L})
                          .with(kvevict::heads::table{put(of_heads), q.m.L, q.m.H});
  kvevict::keep_set const keep = plan(policy, view, {.tokens_per_head = budget, .layer_count = q.m.L});
  CAPTURE(seed, q.m.L, q.m.S, q.m.H, q.m.lengths, budget, of_heads);
  auto const L = static_cast<std::size_t>(q.m.L), S = static_cast<std::size_t>(q.m.S),
             H = static_cast<std::size_t>(q.m.H);
  std::int64_t const fixed = q.sinks + q.recent;
  for (std::size_t s = 0; s < S; ++s) {
    std::int64_t all = 0, longest = 0;
    reference::counts held;
    for (std::size_t l = 0; l < L; ++l) {
      held.push_back(0);
      for (std::size_t h = 0; h < H; ++h) {
        std::int32_t const n = q.m.lengths[(l * S + s) * H + h];
        held.back() += static_cast<std::size_t>(n), all += n, longest = std::max<std::int64_t>(longest, n);
      }
    }
    bool const cut = all > std::int64_t{budget} * q.m.L * q.m.H;
    std::int64_t const spent = std::min(longest, fixed), total = (budget - spent) * q.m.L;
    std::vector<std::int64_t> numerators;
    std::int64_t const sum = std::accumulate(of_layers.begin(), of_layers.end(), std::int64_t{0});
    for (std::int32_t const x : of_layers) numerators.push_back(total * (sum == 0 ? 1 : x));
    auto const line = reference::largest_remainder(numerators, sum == 0 ? q.m.L : sum, static_cast<std::size_t>(total),
                                                   reference::counts(L, std::size_t{1} << 40));
    reference::index_row order = reference::first_indices(L);
    std::int64_t const den = sum == 0 ? q.m.L : sum;
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return numerators[a] % den > numerators[b] % den; });
    reference::counts layers;
    std::size_t left = static_cast<std::size_t>(budget) * L * H;
    for (std::size_t l = 0; l < L; ++l) {
      layers.push_back(std::min(held[l], (line[l] + static_cast<std::size_t>(spent)) * H));
      left -= layers.back();
    }
    while (cut && left > 0)
      for (std::size_t const l : order)
        if (left > 0 && layers[l] < held[l]) ++layers[l], --left;
    for (std::size_t l = 0; l < L; ++l) {
      reference::counts limits;
      std::vector<std::int64_t> x;
      std::int64_t quota = static_cast<std::int64_t>(layers[l]);
      for (std::size_t h = 0; h < H; ++h) {
        std::int64_t const n = q.m.lengths[(l * S + s) * H + h];
        limits.push_back(static_cast<std::size_t>(std::max<std::int64_t>(0, n - fixed)));
        quota -= std::min(n, fixed);
      }
      for (std::size_t h = 0; h < H; ++h) x.push_back(quota * (of_layers[l] == 0 ? 1 : of_heads[l * H + h]));
      bool const whole = !cut || layers[l] == held[l];
      auto const mine = whole ? reference::counts{}
                              : stack_scores::settled(x, of_layers[l] == 0 ? q.m.H : of_layers[l], quota, limits);
      for (std::size_t h = 0; h < H; ++h) {
        std::int64_t const n = q.m.lengths[(l * S + s) * H + h];
        CAPTURE(s, l, h);
        CHECK(keep(int32(l * S + s), int32(h)).size ==
              (whole ? n : std::min(n, fixed) + static_cast<std::int64_t>(mine[h])));
      }
    }
  }
}

/// A share that is no share is refused, whatever the others are. `refused(policy, view, budget)` → what is said.
template <class Put, class Refused> void check_range(Put put, Refused refused) {
  together::model m;
  m.L = 2, m.H = 2, m.lengths = {60, 60, 60, 60};
  std::vector<float> const scores(256, 0.5f);
  auto const view = m.view(put);
  kvevict::budget const ask{.tokens_per_head = 20, .layer_count = 2};
  kvevict::policy const plain{stack_scores::given{put(scores), 64}, kvevict::protect{}};
  for (std::int32_t const wrong : {-5, -1, 1000001, 2147483647}) {
    std::vector<std::int32_t> const of_layers{7, wrong}, of_heads{1, 0, wrong, 5};
    CAPTURE(wrong);
    std::string const is = " of the table is " + std::to_string(wrong) + "; give 0 to 1000000";
    CHECK(contains(refused(plain.with(kvevict::layers::table{put(of_layers), 2}), view, ask),
                   "layers::table: share 1" + is));
    CHECK(contains(refused(plain.with(kvevict::heads::table{put(of_heads), 2, 2}), view, ask),
                   "heads::table: share 2" + is));
  }
  std::vector<std::int32_t> const sound{0, 1000000}, each{0, 1000000, 1000000, 1000000};
  CHECK(
      refused(plain.with(kvevict::layers::table{put(sound), 2}).with(kvevict::heads::table{put(each), 2, 2}), view, ask)
          .empty());
}

}  // namespace support::share_tables
