// SPDX-License-Identifier: Apache-2.0
// Policies of several scores on small integer scores with ties, and what each row must keep, naively; for every
// context.
#pragma once

#include <array>
#include <deque>
#include <set>

#include <kvevict/heads/over_layers.hpp>
#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/reference_shares.hpp"
#include "support/together.hpp"
#include "support/whole_pages.hpp"

namespace support::shares {

/// Three times the scores of the share before it, and its own.
struct on_top_of_it {
  static constexpr bool refines = true;
  together::given own;

  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const&, kvevict::score_rows& out) const {
    kvevict::kernels::each_token(ctx, out, add{{own.scores, own.room, out.heads}});
  }
  struct add {
    together::given::take own;
    constexpr void operator()(kvevict::row const& in, std::int64_t j, float& x) const {
      float mine = 0;
      own(in, j, mine);
      x = 3 * x + mine;
    }
  };
};

enum class division { rows, even, adaptive, adaptive_once, adaptive_first };

/// What is left of one sequence, and what its turns take.
struct sequence {
  std::vector<std::vector<std::int64_t>> const& order;  // (H,N)
  std::vector<std::vector<std::size_t>> left{};         // (H) tokens that may go
  std::vector<std::set<std::size_t>> kept{};            // (H)

  std::size_t H() const { return order.size(); }
  reference::counts room() const {
    reference::counts out;
    for (auto const& l : left) out.push_back(l.size());
    return out;
  }
  /// Tokens of each head among the best of all.
  reference::counts best_of_all(std::vector<std::vector<int>> const& score, std::size_t count) const {
    std::vector<std::array<std::int64_t, 3>> all;
    for (std::size_t h = 0; h < H(); ++h)
      for (std::size_t const j : left[h]) all.push_back({-score[h][j], -order[h][j], static_cast<std::int64_t>(h)});
    std::sort(all.begin(), all.end());
    reference::counts out(H(), 0);
    for (std::size_t i = 0; i < count; ++i) ++out[static_cast<std::size_t>(all[i][2])];
    return out;
  }
  void take(std::vector<std::vector<int>> const& score, reference::counts const& counts) {
    for (std::size_t h = 0; h < H(); ++h) {
      std::sort(left[h].begin(), left[h].end(), [&](std::size_t a, std::size_t b) {
        return score[h][a] != score[h][b] ? score[h][a] > score[h][b] : order[h][a] > order[h][b];
      });
      auto const end = left[h].begin() + static_cast<std::ptrdiff_t>(counts[h]);
      kept[h].insert(left[h].begin(), end);
      left[h].erase(left[h].begin(), end);
    }
  }
  reference::counts adaptive(std::vector<std::vector<int>> const& score, std::size_t q, std::int64_t floor) const {
    std::vector<std::int64_t> numerators;
    auto const n = static_cast<std::int64_t>(H());
    for (std::size_t const f : best_of_all(score, q))
      numerators.push_back((1000 - floor) * n * static_cast<std::int64_t>(f) + floor * static_cast<std::int64_t>(q));
    return reference::apportioned(numerators, 1000 * n, q, room());
  }
  reference::counts even(std::size_t q) const {
    return reference::apportioned(std::vector<std::int64_t>(H(), static_cast<std::int64_t>(q)),
                                  static_cast<std::int64_t>(H()), q, room());
  }
};

/// Of Q tokens.
inline std::size_t share_of(std::size_t Q, std::vector<int> const& permille, std::size_t turn) {
  std::vector<std::int64_t> numerators;
  for (int const p : permille) numerators.push_back(static_cast<std::int64_t>(Q) * p);
  return reference::largest_remainder(numerators, 1000, Q, reference::counts(permille.size(), Q))[turn];
}

/// `permille` and `scores` of the turns, (turns)(H,N).
inline void take_all(sequence& s, division how, std::vector<int> const& permille,
                     std::vector<std::vector<std::vector<int>>> const& scores, reference::counts quotas,
                     std::int64_t floor) {
  std::size_t const Q = reference::total(quotas);
  if (how == division::adaptive_once) quotas = s.adaptive(scores[0], Q, floor);
  for (std::size_t turn = 0; turn < permille.size(); ++turn) {
    std::size_t const q = share_of(Q, permille, turn);
    if (how == division::rows || how == division::adaptive_once) {
      reference::counts each;
      for (std::size_t const mine : quotas) each.push_back(share_of(mine, permille, turn));
      s.take(scores[turn], each);
    } else if (how == division::adaptive || (how == division::adaptive_first && turn == 0)) {
      s.take(scores[turn], s.adaptive(scores[turn], q, floor));
    } else {
      s.take(scores[turn], s.even(q));
    }
  }
}

struct asked {
  together::model m;
  bool scattered;
  std::int32_t budget;
  std::vector<std::int32_t> age;  // (room) of slots
  std::vector<std::vector<float>> tables;
};

inline asked random_case(std::uint64_t seed) {
  reference::generator random(seed);
  asked out;
  together::model& m = out.m;
  m.S = 1 + static_cast<std::int32_t>(random.below(3)), m.H = 1 + static_cast<std::int32_t>(random.below(4));
  out.scattered = random.below(2) != 0;
  std::vector<std::size_t> order = reference::first_indices(64);
  for (std::size_t i = 64; out.scattered && i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  for (std::size_t const j : order) out.age.push_back(static_cast<std::int32_t>(3 * j));
  for (std::size_t r = 0; r < m.rows(); ++r) {
    m.lengths.push_back(static_cast<std::int32_t>(random.below(random.below(3) == 0 ? 12 : 64)));
    m.positions.insert(m.positions.end(), out.age.begin(), out.age.end());
  }
  for (int i = 0; i < 3; ++i) {
    auto& table = out.tables.emplace_back();
    for (std::size_t k = 0; k < m.at(m.rows(), 0); ++k)
      table.push_back(static_cast<float>(random.below(5)) - 2);  // many ties, zeros and negative ones
  }
  out.budget = 5 + static_cast<std::int32_t>(random.below(30));
  return out;
}

/// What `H` rows from `first` on, which share a budget, must keep; `refined`: the second score is three times the
/// first, and its own.
inline reference::index_rows expected(asked const& c, std::size_t first, std::size_t H, division how,
                                      std::vector<int> const& permille, std::int64_t floor, bool refined) {
  std::vector<std::vector<std::int64_t>> order(H);
  std::vector<std::vector<std::vector<int>>> scores(permille.size(), std::vector<std::vector<int>>(H));
  reference::counts quotas;
  reference::index_rows out(H);
  sequence s{order};
  s.left.resize(H), s.kept.resize(H);
  std::size_t tokens = 0;
  auto const B = static_cast<std::size_t>(c.budget);
  for (std::size_t h = 0; h < H; ++h) {
    std::size_t const r = first + h;
    auto const N = static_cast<std::size_t>(c.m.lengths[r]);
    tokens += N, out[h] = reference::first_indices(N);
    reference::index_row by_age = reference::first_indices(N);
    std::sort(by_age.begin(), by_age.end(), [&](auto i, auto j) { return c.age[i] < c.age[j]; });
    for (std::size_t i = 0; i < N; ++i) {
      bool const stays = i < 2 || i + 3 >= N;  // sinks 2, recent 3
      stays ? void(s.kept[h].insert(by_age[i])) : s.left[h].push_back(by_age[i]);
      order[h].push_back(c.age[i]);
    }
    for (std::size_t t = 0; t < permille.size(); ++t)
      for (std::size_t j = 0; j < N; ++j) {
        int const own = static_cast<int>(c.tables[t][c.m.at(r, j)]);
        scores[t][h].push_back(refined && t == 1 ? 3 * scores[0][h][j] + own : own);
      }
    quotas.push_back(B - s.kept[h].size());
  }
  if (how != division::rows && tokens <= B * H) return out;
  if (how == division::rows)  // heads apart, and some whole
    for (std::size_t h = 0; h < H; ++h)
      if (out[h].size() <= B) s.left[h].clear(), s.kept[h] = {out[h].begin(), out[h].end()}, quotas[h] = 0;
  take_all(s, how, permille, scores, quotas, floor);
  for (std::size_t h = 0; h < H; ++h) out[h] = {s.kept[h].begin(), s.kept[h].end()};
  return out;
}

/// plan(policy, view, budget) → the host's keep set; `put(vector)` in the context's memory.
template <class Put, class Plan> void check(std::uint64_t seed, Put put, Plan plan) {
  namespace score = kvevict::score;
  namespace heads = kvevict::heads;
  asked const c = random_case(seed);
  auto view = c.m.view(put);
  if (c.scattered) view = view.with_order(kvevict::row_order::scattered);
  kvevict::budget const ask{.tokens_per_head = c.budget};
  together::given const given[] = {{put(c.tables[0]), 64}, {put(c.tables[1]), 64}, {put(c.tables[2]), 64}};
  kvevict::protect const keep{.sinks = 2, .recent = 3};
  auto const same = [&](kvevict::keep_set const& got, division how, std::vector<int> const& permille, int floor,
                        bool refined = false, bool stacked = false) {
    CAPTURE(seed, static_cast<int>(how), permille, floor, refined, stacked, c.scattered, c.budget, c.m.lengths);
    std::size_t const H = stacked ? c.m.rows() : static_cast<std::size_t>(c.m.H);
    for (std::size_t r = 0; r < c.m.rows(); r += H) {
      auto const want = expected(c, r, H, how, permille, floor, refined);
      for (std::size_t h = 0; h < H; ++h) {
        auto const row = got.row(static_cast<std::int64_t>(r + h));
        CHECK(reference::index_row(row.begin(), row.end()) == want[h]);
      }
    }
  };
  int const first = static_cast<int>(seed * 37 % 1001), floor = static_cast<int>(seed * 113 % 1001);
  kvevict::policy const two{score::shares{score::share{first, given[0]}, score::share{1000 - first, given[1]}}, keep};
  std::vector<int> const halves{first, 1000 - first};
  same(plan(two, view, ask), division::rows, halves, 0);
  same(plan(two.with(heads::adaptive{floor}), view, ask), division::adaptive, halves, floor);
  auto const once = two.with(two.score.dividing(score::heads_divide::whole_budget)).with(heads::adaptive{floor});
  same(plan(once, view, ask), division::adaptive_once, halves, floor);
  together::model layered = c.m;  // the same rows as layers of one sequence
  layered.L = c.m.S, layered.S = 1;
  auto const stack = layered.view(put).with_order(view.order);
  kvevict::budget const of_stack{.tokens_per_head = c.budget, .layer_count = c.m.S};
  same(plan(two.with(heads::over_layers{floor}), stack, of_stack), division::adaptive, halves, floor, false, true);
  kvevict::policy const three{score::shares{score::share{333, given[0], heads::adaptive{floor}},
                                            score::share{333, on_top_of_it{given[1]}}, score::share{334, given[2]}},
                              keep};
  same(plan(three, view, ask), division::adaptive_first, {333, 333, 334}, floor, true);
}

/// f(what, policy, view, budget, visibility) for stages beside the heads': whole pages, one set for all heads and
/// layers, rows that see a part, layers that share a budget. Scores of a model of 4 layers at most, equally long.
struct beside {
  together::model m;
  whole_pages::model paged;
  std::vector<std::vector<float>> tables;
  std::int32_t budget;

  explicit beside(std::uint64_t seed) {
    reference::generator random(seed);
    m.L = 1 + static_cast<std::int32_t>(random.below(3)), m.S = 2, m.H = 1 + static_cast<std::int32_t>(random.below(3));
    paged.L = m.L, paged.S = m.S, paged.H = m.H;
    std::int32_t const lengths[] = {20 + static_cast<std::int32_t>(random.below(44)),
                                    20 + static_cast<std::int32_t>(random.below(44))};
    for (std::size_t r = 0; r < m.rows(); ++r) m.lengths.push_back(lengths[r / static_cast<std::size_t>(m.H) % 2]);
    paged.lengths = m.lengths, paged.make_table(random);
    for (int i = 0; i < 2; ++i) {
      auto& table = tables.emplace_back();
      for (std::size_t k = 0; k < m.at(m.rows(), 0); ++k) table.push_back(static_cast<float>(random.below(7)) - 3);
    }
    budget = 14 + static_cast<std::int32_t>(random.below(20));
  }

  template <class Put, class F> void each(Put put, F f) const {
    namespace score = kvevict::score;
    kvevict::policy const two{score::shares{score::share{700, together::given{put(tables[0]), 64}},
                                            score::share{300, together::given{put(tables[1]), 64}}},
                              kvevict::protect{.sinks = 2, .recent = 1, .recent_permille = 250}};
    kvevict::budget const ask{.tokens_per_head = budget, .layer_count = m.L};
    constexpr kvevict::visibility all{}, some{.window = 18, .sinks = 2};
    auto const by_page = two.with(kvevict::select::pages{});
    kvevict::heads::together const heads{kvevict::group_reduce::sum};
    kvevict::layers::together const layers{kvevict::group_reduce::sum};
    f("pages", by_page, paged.view(put), ask, all);
    f("pages, heads share", by_page.with(kvevict::heads::adaptive{}), paged.view(put), ask, all);
    f("one set", two.with(heads).with(layers), m.view(put), ask, all);
    f("one set of pages", by_page.with(heads).with(layers), paged.view(put), ask, all);
    f("seen", two, m.view(put), ask, some);
    f("layers share", two.with(kvevict::layers::pyramid{}), m.view(put), ask, all);
    f("layers and heads share", two.with(kvevict::layers::pyramid{}).with(kvevict::heads::adaptive{}), m.view(put), ask,
      all);
  }
};

}  // namespace support::shares
