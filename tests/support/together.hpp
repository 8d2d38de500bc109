// SPDX-License-Identifier: Apache-2.0
// Stacks whose rows keep one set of tokens, for every context.
#pragma once

#include <deque>
#include <set>

#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/random.hpp"
#include "support/reference_select.hpp"

namespace support::together {

/// Scores that lie in memory of the context, (rows, room).
struct given {
  float const* scores;
  std::int64_t room;

  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const&, kvevict::score_rows& out) const {
    kvevict::kernels::each_token(ctx, out, take{scores, room, out.heads});
  }
  struct take {
    float const* scores;
    std::int64_t room;
    std::int32_t heads;
    constexpr void operator()(kvevict::row const& in, std::int64_t j, float& x) const {
      x = scores[(std::int64_t{in.sequence} * heads + in.head) * room + j];
    }
  };
};

template <class T> T* keep_bytes(std::deque<std::vector<std::byte>>& memory, std::vector<T> const& x) {
  auto const* const p = reinterpret_cast<std::byte const*>(x.data());
  return reinterpret_cast<T*>(memory.emplace_back(p, p + x.size() * sizeof(T)).data());
}

/// L layers of S sequences and H heads, contiguous rows of `room` slots; keys, and positions of each row or in common.
struct model {
  std::int32_t L = 1, S = 1, H = 1, room = 64;
  bool table_per_head = true, common_positions = false, common_to_layers = false;
  std::vector<std::int32_t> lengths;    // (L·S·H)
  std::vector<std::int32_t> positions;  // (rows, room)

  [[nodiscard]] std::size_t rows() const { return static_cast<std::size_t>(L * S * H); }
  [[nodiscard]] std::size_t at(std::size_t r, std::size_t j) const { return r * static_cast<std::size_t>(room) + j; }

  template <class Put> kvevict::layer_view<> view(Put put) const {
    kvevict::layer_view<> v;
    v.pages.sequences = L * S, v.pages.heads = H, v.pages.page_size = room, v.pages.columns = 1, v.pages.layers = L;
    v.pages.head_stride = table_per_head ? 1 : 0;
    v.lengths = {put(lengths), H, 1};
    auto const add = [&](kvevict::role what, kvevict::dtype type, std::vector<std::int32_t> const& x, bool heads,
                         bool layers) {
      kvevict::component c;
      std::int64_t const row = std::int64_t{room} * 4;
      c.rows.base = reinterpret_cast<std::byte*>(put(x));
      c.rows.page_count = S, c.rows.run_bytes = 4, c.rows.slot_stride = 4, c.rows.head_stride = heads ? 0 : row;
      c.rows.page_stride = row * H, c.rows.layer_stride = layers ? 0 : row * H * S;
      c.what = what, c.type = type;
      v = v.with(c);
    };
    add(kvevict::role::k, kvevict::dtype::f32, std::vector<std::int32_t>(at(rows(), 0)), false, false);
    if (!positions.empty())
      add(kvevict::role::position, kvevict::dtype::i32, positions, common_positions, common_to_layers);
    return v;
  }
};

/// Random models, by three reductions, over heads, layers and both; ascending and scattered rows.
template <class Put, class Plan> void check(std::uint64_t seed, Put put, Plan plan) {
  reference::generator random(seed);
  model m;
  m.L = 1 + static_cast<std::int32_t>(random.below(4)), m.S = 1 + static_cast<std::int32_t>(random.below(3));
  m.H = 1 + static_cast<std::int32_t>(random.below(5));
  bool const scattered = random.below(2) != 0;
  std::vector<std::int32_t> lengths;
  for (std::int32_t s = 0; s < m.S; ++s) lengths.push_back(static_cast<std::int32_t>(random.below(64)));
  std::vector<std::size_t> order = reference::first_indices(64);
  for (std::size_t i = 64; scattered && i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  for (std::size_t r = 0; r < m.rows(); ++r) {
    m.lengths.push_back(lengths[r / static_cast<std::size_t>(m.H) % static_cast<std::size_t>(m.S)]);
    for (std::size_t const j : order) m.positions.push_back(static_cast<std::int32_t>(3 * j));
  }
  std::vector<float> scores;
  for (std::size_t i = 0; i < m.at(m.rows(), 0); ++i)  // few values, so that ties decide, too
    scores.push_back(static_cast<float>(random.below(seed % 2 == 0 ? 8 : 1 << 20)) * 0x1p-20f);
  auto view = m.view(put);
  if (scattered) view = view.with_order(kvevict::row_order::scattered);
  std::int32_t const budget = 5 + static_cast<std::int32_t>(random.below(30));
  kvevict::policy const plain{given{put(scores), m.room}, kvevict::protect{.sinks = 2, .recent = 3}};

  for (auto const reduce : {kvevict::group_reduce::mean, kvevict::group_reduce::max, kvevict::group_reduce::sum})
    for (int const over : {1, 2, 3}) {  // heads, layers, both
      CAPTURE(seed, static_cast<int>(reduce), over, m.L, m.S, m.H, budget, scattered, lengths);
      kvevict::budget const ask{.tokens_per_head = budget, .layer_count = m.L};
      kvevict::keep_set const keep =
          over == 1 ? plan(plain.with(kvevict::heads::together{reduce}), view, ask)
          : over == 2
              ? plan(plain.with(kvevict::layers::together{reduce}), view, ask)
              : plan(plain.with(kvevict::heads::together{reduce}).with(kvevict::layers::together{reduce}), view, ask);
      for (std::size_t r = 0; r < m.rows(); ++r) {
        auto const H = static_cast<std::size_t>(m.H), S = static_cast<std::size_t>(m.S);
        std::size_t const h = r % H, s = r / H % S, l = r / H / S;
        auto const N = static_cast<std::size_t>(m.lengths[r]);
        std::vector<double> all(N, 0.0);
        std::size_t const groups = (over == 2 ? 1 : H) * (over == 1 ? 1 : static_cast<std::size_t>(m.L));
        for (std::size_t other = 0; other < m.rows(); ++other) {
          bool const mine = other / H % S == s && (over != 1 || other / H / S == l) && (over != 2 || other % H == h);
          for (std::size_t j = 0; mine && j < N; ++j) {
            auto const x = static_cast<double>(scores[m.at(other, j)]);
            if (reduce == kvevict::group_reduce::max)
              all[j] = std::max(all[j], x);
            else
              all[j] += reduce == kvevict::group_reduce::sum ? x : x / static_cast<double>(groups);
          }
        }
        auto const age = [&](std::size_t j) { return m.positions[m.at(r, j)]; };
        reference::index_row by_age = reference::first_indices(N), kept;
        std::sort(by_age.begin(), by_age.end(), [&](auto a, auto b) { return age(a) < age(b); });
        auto const row = keep(static_cast<std::int32_t>(r / H), static_cast<std::int32_t>(h));
        reference::index_row const got(row.begin(), row.end());
        auto const b = static_cast<std::size_t>(budget);
        if (N <= b) {
          CHECK(got == reference::first_indices(N));
          continue;
        }
        for (std::size_t i : {std::size_t{0}, std::size_t{1}, N - 3, N - 2, N - 1})
          CHECK(std::binary_search(got.begin(), got.end(), by_age[i]));
        REQUIRE(got.size() == b);
        // nobody outside is better than one inside: score, then age; float rounding of a mean apart
        for (std::size_t i = 2; i + 3 < N; ++i)
          for (std::size_t k = 2; k + 3 < N; ++k) {
            std::size_t const in = by_age[i], out = by_age[k];
            if (!std::binary_search(got.begin(), got.end(), in) || std::binary_search(got.begin(), got.end(), out))
              continue;
            bool const sound = all[in] > all[out] - 1e-6 &&
                               (all[in] != all[out] || age(in) > age(out) || reduce == kvevict::group_reduce::mean);
            if (!sound) CHECK((in == out && all[in] == all[out]));
          }
        if (over != 2 && h > 0)
          CHECK(got == reference::index_row(keep(static_cast<std::int32_t>(r / H), 0).begin(),
                                            keep(static_cast<std::int32_t>(r / H), 0).end()));
        if (over != 1 && l > 0) {
          auto const first = keep(static_cast<std::int32_t>(s), static_cast<std::int32_t>(h));
          CHECK(got == reference::index_row(first.begin(), first.end()));
        }
      }
    }
}

/// refused(policy, view, budget, what): plan says so, before anything is scored; empty: it plans.
template <class Refused> void refusals(Refused refused) {
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return keep_bytes(memory, x); };
  using kvevict::capability;
  namespace heads = kvevict::heads;
  namespace layers = kvevict::layers;
  model m;
  m.L = 2, m.S = 2, m.H = 2;
  m.lengths.assign(8, 40);
  for (int r = 0; r < 8; ++r)
    for (int j = 0; j < 64; ++j) m.positions.push_back(j);
  std::vector<float> const scores(8 * 64, 0.5f);
  kvevict::policy const plain{given{put(scores), m.room}, kvevict::protect{.recent = 1}};
  auto const both = plain.with(heads::together{}).with(layers::together{});
  auto const ada = plain.with(heads::adaptive{});
  kvevict::policy const newest{kvevict::score::none{}, kvevict::protect{.recent = 1}};
  kvevict::budget const ask{.tokens_per_head = 20, .layer_count = 2};
  auto const view = [&](model const& of) { return of.view(put); };
  auto const with = [&](capability c) { return m.view(put).with_capability(c); };

  refused(both, view(m), ask, "");
  model other = m;
  other.lengths[3] = 39;
  refused(plain.with(heads::together{}), view(other), ask, "heads 0 and 1 of sequence 1 have 40 and 39 tokens");
  other = m, other.lengths[6] = other.lengths[7] = 39;
  refused(plain.with(layers::together{}), view(other), ask,
          "layers 0 and 1 of sequence 1, head 0 have 40 and 39 tokens");
  other = m;
  for (std::size_t j = 7; j < 64; ++j) other.positions[other.at(5, j)] = static_cast<std::int32_t>(j) + 83;
  refused(plain.with(heads::together{}), view(other), ask,
          "token 7 of heads 0 and 1 of sequence 2 has position 7 and 90; one set");
  refused(plain.with(layers::together{}), view(other), ask,
          "token 7 of layers 0 and 1 of sequence 0, head 1 has position 7 and 90; one set");
  std::vector<std::int32_t> const each{20, 20, 20, 21};
  refused(plain.with(layers::together{}), view(m), {.layer_count = 2, .per_sequence = put(each)},
          "layers 0 and 1 of sequence 1, head 0 have different budgets");
  refused(plain.with(layers::together{}), view(m), {.tokens_per_head = 20, .layer_count = 3},
          "layers::together needs all 3 layers in one view, which holds 2");

  // what a cache demands
  refused(plain, with({.one_set_for_heads = true}), ask, "add .with(heads::together{})");
  refused(both, with({.one_set_for_heads = true, .one_set_for_layers = true, .equal_counts = true}), ask, "");
  refused(newest, with({.one_set_for_heads = true, .one_set_for_layers = true}), ask, "");
  refused(ada, with({.one_set_for_heads = true}), ask, "add .with(heads::together{})");
  refused(plain, with({.one_set_for_layers = true}), ask, ".with(layers::together{})");
  refused(ada, with({.equal_counts = true}), ask, "add .with(heads::uniform{})");
  refused(plain, with({.equal_counts = true}), ask, "");
  other = m, other.lengths[3] = 39;
  refused(plain, view(other).with_capability({.equal_counts = true}), ask, "");  // both are cut to 20
  other.lengths[3] = 10;
  refused(plain, view(other).with_capability({.equal_counts = true}), ask,
          "heads 0 and 1 of sequence 1 have 40 and 10 tokens");
  refused(plain, view(other).with_capability({.equal_counts = true}), {.tokens_per_head = 40, .layer_count = 2}, "");
  refused(plain, with({.whole_pages = true}), ask, "gives up whole pages of 64 tokens only");
  refused(plain, with({.rows_move = false}), ask, "gives up whole pages of 64 tokens only");
  refused(plain, with({.newest_stays = true}), ask, "");
  refused(plain.with(kvevict::protect{.sinks = 1}), with({.newest_stays = true}), ask, "recent = 1");

  // what its layout shows
  model shared = m;
  shared.table_per_head = false, shared.lengths.assign(4, 40);
  auto const one_length = [&](kvevict::layer_view<> v) {
    v.lengths.seq_stride = 1, v.lengths.head_stride = 0;
    return v;
  };
  refused(plain, one_length(view(shared)), ask, "");
  refused(ada, one_length(view(shared)), ask, "the heads share a page table");
  refused(ada, one_length(view(shared)).with_capability({.masked = true}), ask, "");
  shared.common_positions = true;
  refused(plain, one_length(view(shared)), ask, "add .with(heads::together{})");
  refused(plain.with(heads::together{}), one_length(view(shared)), ask, "");
  refused(newest, one_length(view(shared)), ask, "");
  refused(plain, one_length(view(shared)).with_capability({.masked = true}), ask, "");
}

}  // namespace support::together
