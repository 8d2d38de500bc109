// SPDX-License-Identifier: Apache-2.0
// Attention-Gate through plan, observe and compact, against the naive rule.
#include <set>

#include <kvevict/apply/compact.hpp>
#include <kvevict/kvevict.hpp>
#include <kvevict/layers/pyramid.hpp>
#include <kvevict/threads.hpp>

#include "support/allocations.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace policy_gate_test {

using namespace support;
using Catch::Contains;
using kvevict::budget;
using kvevict::gate_mask;
using layouts::layout;
namespace presets = kvevict::presets;

namespace {

constexpr presets::attention_gate_options narrow{.threshold = 0.5f, .sinks = 2, .recent = 5};
constexpr budget no_cap{.tokens_per_head = budget::no_cap};

/// A gate, the hidden states of its batch, and K and V of the same tokens.
struct layer_case {
  gate_case gate;
  batch kv;

  explicit layer_case(gate_shape s, std::size_t future = 0)
      : gate(with_future(s, future)),
        kv(random_batch(s.seed, {.Hq = 2 * static_cast<std::size_t>(s.H),
                                 .H = static_cast<std::size_t>(s.H),
                                 .N = s.N,
                                 .future = future})) {}

  [[nodiscard]] auto policy(presets::attention_gate_options o = narrow) const {
    return presets::attention_gate(gate.weights(), o);
  }
  [[nodiscard]] std::size_t H() const { return kv.H; }
  [[nodiscard]] std::size_t B() const { return kv.B(); }
  [[nodiscard]] hidden prompt() const { return gate.states(std::vector<std::size_t>(B(), 0), kv.N); }

  /// What the naive rule keeps of the prompt of sequence b. No probability may lie where float noise decides.
  [[nodiscard]] index_rows rule(std::size_t b, presets::attention_gate_options o = narrow) const {
    gate_case some = gate;
    some.X[b].resize(kv.N[b]);
    rows const flags =
        some.flags(b, o.sees == gate_mask::causal ? reference::gate_sight::causal : reference::gate_sight::whole);
    auto const tau = static_cast<double>(o.threshold);
    REQUIRE(reference::gate_margin(flags, tau) > 1e-5);
    return reference::keep_gate(flags, H(),
                                {tau, static_cast<std::size_t>(o.sinks), static_cast<std::size_t>(o.recent)});
  }

  [[nodiscard]] layouts::cache_shape shape(std::int32_t spare = 0) const {
    auto out = cache_shape_of(kv);
    out.state_floats = 1, out.spare_tokens = spare;
    return out;
  }
  template <class F> void with_cache(layout l, F f, std::int32_t page = 16, std::int32_t spare = 0) const {
    auto s = shape(spare);
    s.page_size = page;
    support::with_cache(l, s, kv, [&](auto& cache) {
      cache.view = cache.view.with_capability({.masked = !cache.per_head()});  // gates keep ragged sets
      f(cache);
    });
  }
  template <class F> void with_cache(F f) const { with_cache(layout::head_pages, f); }

 private:
  static gate_shape with_future(gate_shape s, std::size_t future) {
    for (std::size_t& n : s.N) n += future;
    return s;
  }
};

layer_case ragged(std::uint64_t seed = 61) {
  return layer_case({.N = {75, 3, 0, 40, 9}, .H = 3, .group = 2, .heads = 2, .width = 5, .features = 21, .seed = seed});
}

template <class View>
kvevict::keep_set plan(layer_case const& c, View const& view, presets::attention_gate_options o = narrow,
                       budget const& b = no_cap) {
  kvevict::host ctx;
  hidden const x = c.prompt();
  return kvevict::plan(ctx, c.policy(o), kvevict::prompt(view, x.rows()), b);
}
kvevict::keep_set plan(layer_case const& c, presets::attention_gate_options o = narrow, budget const& b = no_cap) {
  kvevict::keep_set out;
  c.with_cache([&](auto& cache) { out = plan(c, cache.view, o, b); });
  return out;
}

/// p of every token and head as the library has it, [b][h](N): from a gate that protects nothing.
std::vector<rows> probabilities(layer_case const& c, gate_mask sees = gate_mask::causal) {
  std::vector<rows> out(c.B(), rows(c.H()));
  c.with_cache([&](auto& cache) {
    kvevict::host ctx;
    hidden const x = c.prompt();
    std::vector<float> values;
    kvevict::scores(ctx, c.policy({.sinks = 0, .recent = 0, .sees = sees}), kvevict::prompt(cache.view, x.rows()),
                    no_cap, values);
    std::size_t at = 0;
    for (std::size_t b = 0; b < c.B(); ++b)
      for (auto& row : out[b])
        for (std::size_t t = 0; t < c.kv.N[b]; ++t) row.push_back(static_cast<double>(values.at(at++)));
  });
  return out;
}

template <class Cache> std::size_t length_index(Cache const& cache, std::size_t b, std::size_t h) {
  return cache.per_head() ? b * static_cast<std::size_t>(cache.view.heads()) + h : b;
}

/// Chunks of at most `most` tokens, another random size for every sequence, 0 and 1 among them; observed as they come.
template <class Cache>
void observe_in_chunks(kvevict::host& ctx, layer_case const& c, Cache& cache, gate_rows& memory, std::uint64_t seed,
                       std::size_t most) {
  reference::generator random(seed);
  std::vector<std::size_t> from(c.B(), 0), to(c.B(), 0);
  while (from != c.kv.N) {
    for (std::size_t b = 0; b < c.B(); ++b) {
      to[b] = std::min(c.kv.N[b], from[b] + random.below(most + 1));
      for (std::size_t h = 0; h < c.H(); ++h) cache.lengths()[length_index(cache, b, h)] = int32(to[b]);
    }
    hidden const x = c.gate.states(from, to);
    kvevict::observe(ctx, c.policy(), kvevict::prompt(cache.view, x.rows(memory.view())), no_cap);
    for (std::size_t b = 0; b < c.B(); ++b) memory.tokens[b] = int32(to[b]);
    from = to;
  }
}

/// A score of the user's own.
struct zeros {
  template <class Context, class Evidence> void operator()(Context&, Evidence const&, kvevict::score_rows& out) const {
    std::fill_n(out.values, out.begin[out.count()], 0.0f);
  }
};

bool same(kvevict::keep_set const& a, kvevict::keep_set const& b) {
  return a.tokens == b.tokens && a.row_begin == b.row_begin && a.lengths == b.lengths;
}

}  // namespace

TEST_CASE("attention_gate keeps what the rule keeps, in every layout") {
  for (gate_mask const sees : {gate_mask::causal, gate_mask::bidirectional})
    for (float const tau : {0.0f, 0.3f, 0.5f, 0.62f}) {
      layer_case const c = ragged();
      presets::attention_gate_options o = narrow;
      o.threshold = tau, o.sees = sees;
      std::vector<index_rows> want;
      for (std::size_t b = 0; b < c.B(); ++b) want.push_back(c.kv.N[b] == 0 ? index_rows(c.H()) : c.rule(b, o));
      for (layout const l : layouts::all)
        for (std::int32_t const page : {1, 16, 64})
          if (page == 16 || tau == 0.5f)
            c.with_cache(
                l,
                [&](auto& cache) {
                  CAPTURE(tau, cache.name(), page);
                  auto const keep = plan(c, cache.view, o);
                  for (std::size_t b = 0; b < c.B(); ++b) CHECK(rows_of_sequence(keep, b) == want[b]);
                },
                page);
    }
}

TEST_CASE("attention_gate leaves one length per head, the number of its flags") {
  layer_case const c = ragged(62);
  kvevict::host ctx;
  for (layout const l : {layout::head_pages, layout::head_blocks})
    for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
      c.with_cache(l, [&](auto& cache) {
        auto const keep = plan(c, cache.view);
        auto const done = kvevict::compact(ctx, cache.view, keep, mode);
        bool equal = true;
        for (std::size_t b = 0; b < c.B(); ++b)
          for (std::size_t h = 0; h < c.H() && c.kv.N[b] > 0; ++h) {
            reference::row const F = reference::flags_of(c.rule(b)[h], c.kv.N[b]);
            double sum = 0;
            for (double const f : F) sum += f;
            CHECK(done.length(int32(b), int32(h)) == static_cast<std::int32_t>(sum));
            equal = equal && done.length(int32(b), int32(h)) == done.length(int32(b), 0);
          }
        CHECK_FALSE(equal);  // the case shows it
      });
  CHECK_FALSE(decltype(c.policy())::equal_counts);
  c.with_cache(layout::nhd, [&](auto& cache) {
    auto const keep = plan(c, cache.view);
    auto const before = cache.snapshot();
    CHECK_THROWS_WITH(kvevict::compact(ctx, cache.view, keep),
                      Contains("share a page table; use a policy with equal counts"));
    CHECK(cache.snapshot() == before);
  });
}

TEST_CASE("a gate observed in chunks plans as from the whole prompt") {
  for (std::uint64_t const seed : {63u, 64u}) {
    layer_case const c = ragged(seed);
    for (layout const l : {layout::head_pages, layout::nhd, layout::pointers, layout::bnsh})
      for (std::size_t const most : {1u, 7u, 30u, 200u})
        c.with_cache(l, [&](auto& cache) {
          CAPTURE(seed, cache.name(), most);
          kvevict::host ctx;
          auto const want = plan(c, cache.view);
          gate_rows memory = c.gate.memory(75);
          observe_in_chunks(ctx, c, cache, memory, seed + most, most);
          CHECK(same(kvevict::plan(ctx, c.policy(), kvevict::remembered(cache.view), no_cap), want));
          auto const p = probabilities(c);
          for (std::size_t b = 0; b < c.B(); ++b)
            for (std::size_t h = 0; h < c.H(); ++h) {
              auto const state = cache.read(kvevict::role::state, static_cast<int>(b), static_cast<int>(h));
              CHECK(std::equal(state.begin(), state.end(), p[b][h].begin(), p[b][h].end(),
                               [](float x, double y) { return double{x} == y; }));
            }
        });
  }
}

TEST_CASE("a whole prompt may be observed without a memory") {
  layer_case const c = ragged(65);
  c.with_cache([&](auto& cache) {
    kvevict::host ctx;
    hidden const x = c.prompt();
    for (gate_mask const sees : {gate_mask::causal, gate_mask::bidirectional}) {
      presets::attention_gate_options o = narrow;
      o.sees = sees;
      kvevict::observe(ctx, c.policy(o), kvevict::prompt(cache.view, x.rows()), no_cap);
      CHECK(same(kvevict::plan(ctx, c.policy(o), kvevict::remembered(cache.view), no_cap), plan(c, cache.view, o)));
    }
  });
}

TEST_CASE("fewer tokens pass a higher threshold, none a threshold of almost 1, all a threshold of 0") {
  for (std::uint64_t const seed : {66u, 67u}) {
    layer_case const c = ragged(seed);
    std::vector<std::int64_t> before;
    for (float const tau : {0.0f, 1e-30f, 0.1f, 0.25f, 0.4f, 0.5f, 0.55f, 0.6f, 0.75f, 0.9f, 0.99f, 0.99999994f}) {
      presets::attention_gate_options o = narrow;
      o.threshold = tau;
      auto const keep = plan(c, o);
      std::vector<std::int64_t> counts;
      for (std::int64_t r = 0; r < keep.rows(); ++r) {
        counts.push_back(keep.row(r).size);
        if (!before.empty()) CHECK(counts.back() <= before[static_cast<std::size_t>(r)]);
      }
      CAPTURE(tau, seed);
      if (tau == 0) CHECK(keep.is_identity());
      if (tau > 0.9999f)
        for (std::size_t r = 0; r < counts.size(); ++r) CHECK(counts[r] == std::min<std::int64_t>(keep.lengths[r], 7));
      before = counts;
    }
  }
  layer_case c = ragged(68);  // p = 0 exactly: 0 keeps all by definition, not because p > 0
  for (double& b : c.gate.gate.bias) b = -1e4;
  c.gate.store();
  CHECK(plan(c, {.threshold = 0, .sinks = 0, .recent = 0}).is_identity());
  CHECK(plan(c, {.threshold = 1e-30f, .sinks = 0, .recent = 0}).kept() == 0);
  for (double& b : c.gate.gate.bias) b = 0;
  for (double& w : c.gate.gate.wo) w = 0;
  c.gate.store();
  CHECK(plan(c, {.threshold = 0.5f, .sinks = 0, .recent = 0}).kept() == 0);  // p = τ is not above it
  CHECK(plan(c, {.threshold = 0.49999997f, .sinks = 0, .recent = 0}).is_identity());
}

TEST_CASE("a threshold of 0 keeps all, scores of exactly 0 too") {
  layer_case const c = ragged();
  c.with_cache([&](auto& cache) {
    kvevict::host ctx;
    kvevict::policy const p{zeros{}, kvevict::protect{2, 5}};
    CHECK(
        kvevict::plan(ctx, p.with(kvevict::heads::threshold{0}), kvevict::contents(cache.view), no_cap).is_identity());
    auto const keep =
        kvevict::plan(ctx, p.with(kvevict::heads::threshold{1e-45f}), kvevict::contents(cache.view), no_cap);
    for (std::int64_t r = 0; r < keep.rows(); ++r)
      CHECK(keep.row(r).size == std::min(keep.lengths[static_cast<std::size_t>(r)], 7));
  });
}

TEST_CASE("protected tokens stay whatever the gate says") {
  layer_case c = ragged(69);
  for (double& b : c.gate.gate.bias) b = -1e4;
  c.gate.store();
  for (auto const& [first, last] : {std::pair{0, 0}, {4, 0}, {0, 9}, {4, 32}, {100, 0}}) {
    auto const keep = plan(c, {.threshold = 0.5f, .sinks = first, .recent = last});
    for (std::int64_t r = 0; r < keep.rows(); ++r) {
      std::vector<std::int32_t> want;
      std::int32_t const n = keep.lengths[static_cast<std::size_t>(r)];
      for (std::int32_t t = 0; t < n; ++t)
        if (t < first || t >= n - last) want.push_back(t);
      CHECK(std::vector<std::int32_t>(keep.row(r).begin(), keep.row(r).end()) == want);
    }
  }
  std::vector<std::int32_t> const read_only{16, 0, 0, 32, 0};
  c.with_cache([&](auto& cache) {
    auto const keep =
        plan(c, cache.view.with_read_only(read_only.data()), {.threshold = 0.5f, .sinks = 2, .recent = 3});
    for (std::int32_t h = 0; h < 3; ++h) CHECK(keep(0, h).size == 19);
    for (std::int32_t h = 0; h < 3; ++h) CHECK(keep(3, h).size == 35);
    CHECK(keep(0, 1)[15] == 15);
  });
}

namespace {

/// Protected tokens and the `count` best of the rest: p descending, newer first.
index_row best_of(reference::row const& p, std::size_t first, std::size_t last, std::size_t count) {
  std::size_t const N = p.size(), begin = std::min(first, N), end = std::max(begin, N - std::min(N, last));
  index_row out;
  for (std::size_t t = 0; t < N; ++t)
    if (t < begin || t >= end) out.push_back(t);
  for (std::size_t const t : reference::top_k(
           reference::row(p.begin() + static_cast<std::ptrdiff_t>(begin), p.begin() + static_cast<std::ptrdiff_t>(end)),
           count))
    out.push_back(begin + t);
  std::sort(out.begin(), out.end());
  return out;
}
std::size_t passing(reference::row const& p, std::size_t first, std::size_t last, double tau) {
  std::size_t out = 0;
  for (std::size_t t = first; t + last < p.size(); ++t) out += tau == 0 || p[t] > tau;
  return out;
}

/// Only three different hidden states, all of them seen by all: many probabilities are the same to the bit.
layer_case tied(std::uint64_t seed) {
  layer_case c({.N = {60, 31}, .H = 2, .seed = seed});
  reference::generator random(seed + 1);
  for (auto& X : c.gate.X)
    for (std::size_t t = 3; t < X.size(); ++t) X[t] = X[random.below(3)];
  c.gate.store();
  return c;
}

}  // namespace

TEST_CASE("a budget is a cap on what the gate keeps: the best stay, ties go to the newer token") {
  for (bool const ties : {false, true})
    for (gate_mask const sees : {gate_mask::causal, gate_mask::bidirectional}) {
      layer_case const c = ties ? tied(70) : ragged(71);
      auto const p = probabilities(c, sees);
      if (ties && sees == gate_mask::bidirectional)
        REQUIRE(std::set<double>(p[0][0].begin(), p[0][0].end()).size() == 3);
      for (float const tau : {0.0f, 0.3f, 0.5f, 0.6f})
        for (std::int32_t const cap : {7, 8, 12, 20, 33, 74, 75, 1000, budget::no_cap})
          for (std::int32_t const floor : {0, 3, 25, 1000}) {
            presets::attention_gate_options const o{
                .threshold = tau, .sinks = 2, .recent = 5, .floor = floor, .sees = sees};
            auto const keep = plan(c, o, {.tokens_per_head = cap});
            CAPTURE(ties, static_cast<int>(sees), tau, cap, floor);
            for (std::size_t b = 0; b < c.B(); ++b)
              for (std::size_t h = 0; h < c.H(); ++h) {
                std::size_t count =
                    std::max(passing(p[b][h], 2, 5, static_cast<double>(tau)), static_cast<std::size_t>(floor));
                count = std::min(count, static_cast<std::size_t>(cap) - 7);
                REQUIRE(rows_of_sequence(keep, b)[h] == best_of(p[b][h], 2, 5, count));
              }
          }
    }
}

TEST_CASE("every sequence may have a cap of its own, or none") {
  layer_case const c = ragged(72);
  std::int32_t const caps[] = {20, 7, 9, budget::no_cap, 8};
  auto const keep = plan(c, narrow, {.tokens_per_head = 1, .per_sequence = caps});
  for (std::size_t b = 0; b < c.B(); ++b)
    CHECK(rows_of_sequence(keep, b) == rows_of_sequence(plan(c, narrow, {.tokens_per_head = caps[b]}), b));
  CHECK(keep(0, 0).size == 20);
  CHECK(rows_of_sequence(keep, 3) == c.rule(3));
}

TEST_CASE("a layer stage divides a cap, and leaves no cap alone") {
  layer_case const c = ragged(81);
  hidden const x = c.prompt();
  auto const policy = c.policy().with(kvevict::layers::pyramid{});
  c.with_cache([&](auto& cache) {
    kvevict::host ctx;
    auto const e = kvevict::prompt(cache.view, x.rows());
    std::int64_t sum = 0;
    for (std::int32_t layer = 0; layer < 4; ++layer) {
      CAPTURE(layer);
      kvevict::keep_set all;
      CHECK(refusal([&] {
              kvevict::plan(ctx, policy, e, {.tokens_per_head = budget::no_cap, .layer = layer, .layer_count = 4}, all);
            }) == "");
      CHECK(same(all, plan(c)));
      auto const keep = kvevict::plan(ctx, policy.with(kvevict::heads::threshold{0}), e,
                                      {.tokens_per_head = 20, .layer = layer, .layer_count = 4});
      sum += keep(0, 0).size;
    }
    CHECK(sum == 4 * 20);
  });
}

TEST_CASE("the bits of a gate's plan do not depend on threads") {
  kvevict::threads three(3);
  kvevict::host serial, threaded(three.as_executor(0));
  layer_case const c = ragged(73);
  hidden const x = c.prompt();
  c.with_cache([&](auto& cache) {
    auto const e = kvevict::prompt(cache.view, x.rows());
    std::vector<float> one, other;
    for (budget const& b : {no_cap, budget{.tokens_per_head = 11}}) {
      CHECK(same(kvevict::plan(serial, c.policy(), e, b), kvevict::plan(threaded, c.policy(), e, b)));
      kvevict::scores(serial, c.policy(), e, b, one), kvevict::scores(threaded, c.policy(), e, b, other);
      CHECK(one == other);
    }
    kvevict::observe(serial, c.policy(), e, no_cap);
    auto const bytes = cache.snapshot();
    kvevict::observe(threaded, c.policy(), e, no_cap);
    CHECK(cache.snapshot() == bytes);
  });
}

TEST_CASE("decoding with a gate: every new token is gated, state moves with the tokens") {
  constexpr std::size_t steps = 24;
  for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
    for (layout const l : {layout::head_pages, layout::head_blocks})
      for (std::int32_t const cap : {budget::no_cap, 12}) {
        layer_case const c({.N = {40, 26}, .H = 2, .group = 2, .heads = 2, .width = 4, .features = 18, .seed = 74},
                           steps);
        std::vector<rows> p;  // of all tokens, (H,N + steps): the gate reads evicted tokens too
        for (std::size_t b = 0; b < c.B(); ++b) {
          p.push_back(c.gate.expected(b));
          REQUIRE(reference::gate_margin(p.back(), 0.5) > 1e-5);
        }
        c.with_cache(
            l,
            [&](auto& cache) {
              kvevict::host ctx;
              gate_rows memory = c.gate.memory(int32(c.kv.N[0] + steps));
              observe_in_chunks(ctx, c, cache, memory, 75, 16);
              std::vector<index_rows> held;  // positions, by the naive rule
              for (std::size_t b = 0; b < c.B(); ++b) held.emplace_back(c.H(), reference::first_indices(c.kv.N[b]));
              auto order = kvevict::row_order::ascending;
              for (std::size_t step = 0;; ++step) {
                CAPTURE(cache.name(), static_cast<int>(mode), cap, step);
                auto const view = cache.view.with_order(order);
                auto const keep = kvevict::plan(ctx, c.policy(), kvevict::remembered(view), {.tokens_per_head = cap});
                auto const done = kvevict::compact(ctx, view, keep, mode);
                order = done.order();
                for (std::size_t b = 0; b < c.B(); ++b)
                  for (std::size_t h = 0; h < c.H(); ++h) {
                    cache.lengths()[b * c.H() + h] = done.length(int32(b), int32(h));
                    index_row& row = held[b][h];
                    reference::row of;
                    for (std::size_t const t : row) of.push_back(p[b][h][t]);
                    std::size_t count = passing(of, 2, 5, 0.5);
                    count = std::min(count, static_cast<std::size_t>(cap) - 7);
                    index_row next;
                    for (std::size_t const i : best_of(of, 2, 5, count)) next.push_back(row[i]);
                    row = next;
                    auto const at = cache.read(kvevict::role::position, static_cast<int>(b), static_cast<int>(h)),
                               state = cache.read(kvevict::role::state, static_cast<int>(b), static_cast<int>(h));
                    index_row got(at.begin(), at.end());
                    for (std::size_t s = 0; s < got.size(); ++s)
                      CHECK(std::abs(double{state[s]} - p[b][h][got[s]]) < 1e-5);
                    std::sort(got.begin(), got.end());
                    REQUIRE(got == row);
                  }
                if (step == steps) break;
                std::vector<std::size_t> from, to;
                for (std::size_t b = 0; b < c.B(); ++b) {
                  from.push_back(c.kv.N[b] + step), to.push_back(from.back() + 1);
                  for (std::size_t h = 0; h < c.H(); ++h) {
                    int const slot = cache.lengths()[b * c.H() + h]++;
                    held[b][h].push_back(from[b]);
                    cache.set(*cache.view.find(kvevict::role::position), static_cast<int>(b), static_cast<int>(h), slot,
                              0, static_cast<float>(from[b]));
                    cache.set(*cache.view.find(kvevict::role::state), static_cast<int>(b), static_cast<int>(h), slot, 0,
                              garbage);
                  }
                }
                hidden const x = c.gate.states(from, to);
                kvevict::observe(ctx, c.policy(), kvevict::step(cache.view.with_order(order), x.rows(memory.view())),
                                 {.tokens_per_head = cap});
                for (std::size_t b = 0; b < c.B(); ++b) ++memory.tokens[b];
              }
              if (mode == kvevict::compaction::fill_holes) CHECK(order == kvevict::row_order::scattered);
            },
            8, int32(steps));
      }
}

TEST_CASE("flags of 1 are plain attention, other flags attention over the kept columns") {
  batch const in = random_batch(76, {.Hq = 4, .H = 2, .D = 8, .N = {30}, .future = 0});
  reference::layer const& l = in.layers[0];
  reference::generator random(77);
  for (std::size_t hq = 0; hq < 4; ++hq)
    for (std::size_t i = 0; i < 30; ++i) {
      reference::row flags(30);
      for (double& f : flags) f = static_cast<double>(random.below(2));
      index_row columns;
      for (std::size_t j = 0; j <= i; ++j)
        if (flags[j] == 1 || j == i) columns.push_back(j);
      auto const plain = reference::flagged_row(l, hq, i, reference::row(30, 1.0)),
                 all = reference::attention_row(l, hq, i);
      for (std::size_t j = 0; j <= i; ++j) CHECK(plain[j] == Approx(all[j]).epsilon(1e-12));
      auto const flagged = reference::flagged_row(l, hq, i, flags),
                 gathered = reference::attention_row(l, hq, i, columns);
      reference::row scattered(i + 1, 0.0);
      for (std::size_t n = 0; n < columns.size(); ++n) scattered[columns[n]] = gathered[n];
      for (std::size_t j = 0; j <= i; ++j) CHECK(flagged[j] == Approx(scattered[j]).epsilon(1e-12).margin(1e-300));
      auto const output = reference::flagged_output(l, hq, i, flags),
                 expected = reference::attention_output(l, hq, i, columns);
      for (std::size_t d = 0; d < 8; ++d) CHECK(output[d] == Approx(expected[d]).epsilon(1e-12).margin(1e-14));
    }
}

TEST_CASE("attention over the compacted cache is flagged attention of the next token") {
  layer_case const c({.N = {50, 17, 3}, .H = 2, .seed = 78}, 1);
  kvevict::host ctx;
  for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
    c.with_cache([&](auto& cache) {
      auto const keep = plan(c, cache.view);
      auto const done = kvevict::compact(ctx, cache.view, keep, mode);
      std::copy(done.lengths().begin(), done.lengths().end(), cache.lengths().begin());
      for (std::size_t b = 0; b < c.B(); ++b) {
        index_rows const kept = c.rule(b);
        for (std::size_t hq = 0; hq < c.kv.Hq; ++hq) {
          reference::layer const& l = c.kv.layers[b];
          std::size_t const N = c.kv.N[b], h = l.kv_head(hq);
          auto const want = reference::flagged_output(l, hq, N, reference::flags_of(kept[h], N + 1));
          auto const K = cache.read(kvevict::role::k, static_cast<int>(b), static_cast<int>(h)),
                     V = cache.read(kvevict::role::v, static_cast<int>(b), static_cast<int>(h));
          std::size_t const n = K.size() / 8;
          reference::row z{reference::logit(l, hq, N, N)};  // the next token sees itself
          for (std::size_t s = 0; s < n; ++s) {
            double dot = 0;
            for (std::size_t d = 0; d < 8; ++d) dot += l.queries.at(hq, N, d) * double{K[s * 8 + d]};
            z.push_back(dot / std::sqrt(8.0));
          }
          auto const a = reference::softmax(z);
          for (std::size_t d = 0; d < 8; ++d) {
            double sum = a[0] * l.values.at(h, N, d);
            for (std::size_t s = 0; s < n; ++s) sum += a[s + 1] * double{V[s * 8 + d]};
            CHECK(sum == Approx(want[d]).epsilon(1e-9).margin(1e-12));
          }
        }
      }
    });
}

TEST_CASE("a gate's plan and observe allocate once, and nothing beyond workspace_bytes") {
  kvevict::threads three(3);
  for (bool const threaded : {false, true})
    for (bool const observes : {false, true})
      for (std::vector<std::size_t> const& N : {std::vector<std::size_t>{75, 3, 0, 40, 9}, {75, 75, 75}, {200}}) {
        layer_case const c({.N = N, .H = 3, .group = 2, .heads = 2, .width = 5, .features = 21, .seed = 79});
        c.with_cache([&](auto& cache) {
          kvevict::host ctx = threaded ? kvevict::host(three.as_executor(0)) : kvevict::host();
          auto const& v = cache.view;
          std::int64_t const longest = static_cast<std::int64_t>(*std::max_element(N.begin(), N.end()));
          kvevict::cache_shape const shape{
              v.sequences(), 6, 3, 8, longest, v.pages.rows() * v.pages.columns, v.components[0].rows.page_count};
          std::int64_t const promised = workspace_bytes(ctx, c.policy(), shape);
          ctx.reserve(static_cast<std::size_t>(promised));
          hidden const x = c.prompt();
          gate_rows memory = c.gate.memory(200);
          kvevict::keep_set keep;
          auto const once = [&](bool remembers) {
            auto const e = kvevict::prompt(v, x.rows(remembers ? memory.view() : kvevict::gate_memory{}));
            if (observes)
              kvevict::observe(ctx, c.policy(), e, no_cap),
                  kvevict::plan(ctx, c.policy(), kvevict::remembered(v), no_cap, keep);
            else
              kvevict::plan(ctx, c.policy(), e, no_cap, keep);
          };
          // the keep set's own memory
          kvevict::plan(ctx, c.policy({.threshold = 0}), kvevict::prompt(v, x.rows()), no_cap, keep);
          CAPTURE(threaded, observes, N, promised);
          auto const before = allocations();
          for (int i = 0; i < 10; ++i) once(i % 2 == 1);
          CHECK(allocations() == before);
          CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= promised);
          CHECK(ctx.scratch().capacity() == static_cast<std::size_t>(promised));
        });
      }
}

TEST_CASE("a gate plans nothing from nothing") {
  for (std::vector<std::size_t> const& N : {std::vector<std::size_t>{}, {0}, {0, 0}})
    for (std::int32_t const cap : {budget::no_cap, 16}) {
      layer_case const c({.N = N});
      auto const keep = plan(c, narrow, {.tokens_per_head = cap});
      CHECK(keep.kept() == 0);
      CHECK(keep.is_identity());
      CHECK(keep.rows() == static_cast<std::int64_t>(2 * N.size()));
      c.with_cache([&](auto& cache) {
        kvevict::host ctx;
        hidden const x = c.prompt();
        CHECK_NOTHROW(kvevict::observe(ctx, c.policy(), kvevict::prompt(cache.view, x.rows()), no_cap));
        CHECK(kvevict::plan(ctx, c.policy(), kvevict::remembered(cache.view), no_cap).kept() == 0);
      });
    }
}

TEST_CASE("a gate's plan writes no memory") {
  layer_case const c = ragged();
  c.with_cache([&](auto& cache) {
    kvevict::host ctx;
    hidden const x = c.prompt();
    gate_rows memory = c.gate.memory(200);
    std::fill(memory.rows.begin(), memory.rows.end(), 0.25f);
    auto const before = memory.rows;
    auto const keep = kvevict::plan(ctx, c.policy(), kvevict::prompt(cache.view, x.rows(memory.view())), no_cap);
    CHECK(same(keep, plan(c, cache.view)));
    CHECK(memory.rows == before);
  });
}

TEST_CASE("hidden states of a sequence that is kept whole are not read, and its memory is not written") {
  layer_case c({.N = {40, 30, 35}, .H = 2, .seed = 83});
  hidden const sound = c.prompt();
  c.gate.X[1][4][2] = static_cast<double>(garbage), c.gate.store();
  hidden const x = c.prompt();
  std::uint8_t const whole[] = {0, 1, 0};
  budget const b{.tokens_per_head = budget::no_cap, .whole = whole};
  c.with_cache([&](auto& cache) {
    kvevict::host ctx;
    auto const want = kvevict::plan(ctx, c.policy(), kvevict::prompt(cache.view, sound.rows()), b);
    CHECK(want(1, 0).size == 30);
    CHECK(same(kvevict::plan(ctx, c.policy(), kvevict::prompt(cache.view, x.rows()), b), want));
    cache.fill(kvevict::role::state, [](int, int, int, int) { return 7.0f; });
    gate_rows memory = c.gate.memory(40);
    auto const e = kvevict::prompt(cache.view, x.rows(memory.view()));
    std::vector<float> values;
    CHECK_NOTHROW(kvevict::scores(ctx, c.policy(), kvevict::prompt(cache.view, x.rows()), b, values));
    kvevict::observe(ctx, c.policy(), e, b);
    for (int i = 0; i < 3; ++i) {
      auto const state = cache.read(kvevict::role::state, i, 1);
      for (float const p : state) CHECK((p == 7) == (i == 1));
      CHECK(std::isnan(memory.rows[static_cast<std::size_t>(i * memory.stride)]) == (i == 1));
    }
    CHECK_THROWS_WITH(kvevict::observe(ctx, c.policy(), e, no_cap), Contains("not a number"));
  });
}

TEST_CASE("of tokens that nobody has observed the state starts at 0, and only the newest is gated, in any order") {
  layer_case const c({.N = {40, 30}, .H = 2, .seed = 82});
  for (bool const scattered : {false, true})
    c.with_cache([&](auto& cache) {
      kvevict::host ctx;
      std::size_t const newest[] = {scattered ? 11u : 39u, scattered ? 4u : 29u};  // slots
      for (std::size_t b = 0; b < 2; ++b)
        for (int h = 0; h < 2; ++h)
          for (std::size_t t = 0; t < c.kv.N[b]; ++t)
            cache.set(*cache.view.find(kvevict::role::position), static_cast<int>(b), h, static_cast<int>(t), 0,
                      static_cast<float>(t == newest[b] ? 90 : t));
      cache.fill(kvevict::role::state, [](int, int, int, int) { return garbage; });
      gate_rows memory = c.gate.memory(40);
      std::fill(memory.rows.begin(), memory.rows.end(), 0.25f), memory.tokens = {39, 29};
      hidden const x = c.gate.states({39, 29}, {40, 30});
      auto const view =
          cache.view.with_order(scattered ? kvevict::row_order::scattered : kvevict::row_order::ascending);
      auto const e = kvevict::step(view, x.rows(memory.view())).with_older(kvevict::older_tokens::zero);
      kvevict::observe(ctx, c.policy(), e, no_cap);
      for (std::size_t b = 0; b < 2; ++b)
        for (int h = 0; h < 2; ++h) {
          auto const state = cache.read(kvevict::role::state, static_cast<int>(b), h);
          REQUIRE(state.size() == c.kv.N[b]);
          for (std::size_t t = 0; t < state.size(); ++t) CHECK((state[t] != 0) == (t == newest[b]));
        }
    });
}

namespace {

/// A cache with state for bad calls: after each, keep set, scores, state and cache are as they were.
struct room {
  layer_case c = layer_case({.N = {40, 30}, .H = 2, .seed = 80});
  layouts::cache<std::int32_t> cache;
  kvevict::host ctx;
  hidden x = c.prompt();
  gate_rows memory = c.gate.memory(40);

  room() : cache(layout::head_pages, c.shape()) {
    fill(cache, c.kv);
    cache.fill(kvevict::role::state, [](int b, int h, int t, int) { return 0.1f * static_cast<float>(b + h + t % 7); });
  }
  template <class Policy, class Evidence>
  void refuses(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy,
               budget const& b = no_cap) {
    auto const bytes = cache.snapshot();
    kvevict::keep_set out =
        kvevict::plan(ctx, presets::streaming_llm(), kvevict::contents(cache.view), {.tokens_per_head = 9});
    auto const before = out;
    auto const message = refusal([&] { kvevict::plan(ctx, p, e, b, out); });
    CHECK_THAT(message, Contains(what) && Contains(remedy) && Contains("; "));
    CHECK(same(out, before));
    CHECK(cache.snapshot() == bytes);
  }
  template <class Policy, class Evidence>
  void ignores(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy) {
    auto const bytes = cache.snapshot();
    CHECK_THAT(refusal([&] { kvevict::observe(ctx, p, e, no_cap); }),
               Contains(what) && Contains(remedy) && Contains("; "));
    CHECK(cache.snapshot() == bytes);
  }
};

}  // namespace

TEST_CASE("bad input: a threshold that is not a probability below 1, a negative floor") {
  room r;
  auto const e = kvevict::prompt(r.cache.view, r.x.rows());
  for (float const tau : {1.0f, 1.5f, -0.1f, garbage, std::numeric_limits<float>::infinity()}) {
    r.refuses(r.c.policy({.threshold = tau}), e, "threshold: τ is ", "give a number in [0,1)");
    r.refuses(r.c.policy({.threshold = tau}), kvevict::remembered(r.cache.view), "threshold: τ is ",
              "give a number in [0,1)");
  }
  r.refuses(r.c.policy({.floor = -1}), e, "a floor of -1 tokens", "give a count");
}
TEST_CASE("bad input: a cap below the protected tokens, or negative") {
  room r;
  auto const e = kvevict::prompt(r.cache.view, r.x.rows());
  r.refuses(r.c.policy(), e,
            "a budget of 6 tokens is below the 7 protected tokens of sequence 0 (2 at the front, 5 recent)",
            "raise tokens_per_head or protect fewer", {.tokens_per_head = 6});
  std::int32_t const caps[] = {budget::no_cap, 1};
  r.refuses(r.c.policy(), e, "a budget of 1 tokens is below the 7 protected tokens of sequence 1", "raise",
            {.per_sequence = caps});
  r.refuses(r.c.policy(), e, "budget of -1", "give a count", {.tokens_per_head = -1});
  r.refuses(r.c.policy(), e, "tokens_per_head is 0", "budget::no_cap", {});
  r.refuses(r.c.policy({.sinks = -1}), e, "negative count", "sinks, recent ≥ 0");
  CHECK_NOTHROW(kvevict::plan(r.ctx, r.c.policy(), e, {.tokens_per_head = 7}));
}
TEST_CASE("bad input: a gate whose hidden states are not those of the whole cache") {
  room r;
  hidden const some = r.c.gate.states({0, 0}, {40, 29}), late = r.c.gate.states({1, 0}, {40, 30}),
               none = r.c.gate.states({0, 0}, {0, 0});
  r.refuses(r.c.policy(), kvevict::prompt(r.cache.view, some.rows()),
            "sequence 1 provides 29 hidden states for 30 tokens", "observe its chunks and plan from remembered(cache)");
  r.refuses(r.c.policy(), kvevict::prompt(r.cache.view, late.rows()),
            "sequence 0 provides 39 hidden states for 40 tokens", "plan from a whole prompt");
  r.refuses(r.c.policy(), kvevict::prompt(r.cache.view, none.rows()), "provides 0 hidden states",
            "plan from a whole prompt");
  auto const scattered = r.cache.view.with_order(kvevict::row_order::scattered);
  r.refuses(r.c.policy(), kvevict::prompt(scattered, r.x.rows()), "tokens in order",
            "observe its chunks and plan from remembered(cache)");
  for (auto& n : r.cache.lengths()) n = 20;
  r.refuses(r.c.policy(), kvevict::prompt(r.cache.view, r.x.rows()), "provides 40 hidden states for 20 tokens",
            "plan from a whole prompt");
  r.ignores(r.c.policy(), kvevict::prompt(r.cache.view, r.x.rows()), "observe: 40 rows for 20 tokens",
            "append the new tokens to the cache first");
}
TEST_CASE("bad input: hidden states of another width or type, without offsets or data") {
  room r;
  auto const both = [&](kvevict::feature_rows const& in, std::string const& what, std::string const& remedy) {
    r.refuses(r.c.policy(), kvevict::prompt(r.cache.view, in), what, remedy);
    r.ignores(r.c.policy(), kvevict::prompt(r.cache.view, in), what, remedy);
  };
  auto in = r.x.rows();
  in.width = 23;
  both(in, "hidden states of 23 elements", "the input of this layer's q/k/v projections");
  in = r.x.rows(), in.type = kvevict::dtype::i32;
  both(in, "of type i32", "the input of this layer's q/k/v projections");
  in = r.x.rows(), in.row_begin = nullptr;
  both(in, "without row_begin", "(B+1) offsets");
  in = r.x.rows(), in.data = nullptr;
  both(in, "without data or row_begin", "(B+1) offsets");
  in = r.x.rows(r.memory.view()), in.memory.tokens = nullptr;
  both(in, "without its token counts", "gate_memory::tokens");
  r.memory.tokens[0] = 1;
  r.ignores(r.c.policy(), kvevict::prompt(r.cache.view, r.x.rows(r.memory.view())),
            "1 + 40 tokens of sequence 0 do not fit the memory's 40", "larger");
  std::int32_t const descending[] = {0, 40, 30};
  in = r.x.rows(), in.row_begin = descending;
  r.ignores(r.c.policy(), kvevict::prompt(r.cache.view, in), "row_begin descends at sequence 1", "ascending offsets");
  std::int32_t const below[] = {-40, 0, 30};
  in.row_begin = below;
  both(in, "row_begin starts at -40", "none negative");
}
TEST_CASE("bad input: offsets of hidden states that descend in all") {
  for (std::size_t const N : {30u, 5u})  // 5: all protected
    for (auto const order : {kvevict::row_order::ascending, kvevict::row_order::scattered}) {
      layer_case const c({.N = {N}, .seed = 82});
      hidden const x = c.prompt();
      auto in = x.rows();
      std::int32_t const begin[] = {40, 0};
      in.row_begin = begin;
      c.with_cache([&](auto& cache) {
        kvevict::host ctx;
        auto const e = kvevict::prompt(cache.view.with_order(order), in);
        CHECK_THROWS_AS(kvevict::plan(ctx, c.policy(), e, no_cap), kvevict::contract_violation);
        CHECK_THROWS_AS(kvevict::observe(ctx, c.policy(), e, no_cap), kvevict::contract_violation);
      });
    }
}
TEST_CASE("bad input: a whole prompt behind a memory that holds it already") {
  room r;
  gate_rows memory = r.c.gate.memory(80);  // room for decoding
  auto const in = r.x.rows(memory.view());
  kvevict::observe(r.ctx, r.c.policy(), kvevict::prompt(r.cache.view, in), no_cap);
  memory.tokens = {40, 30};
  r.refuses(r.c.policy(), kvevict::prompt(r.cache.view, in), "memory", "remembered(cache)");
}
TEST_CASE("bad input: a gate without weights or with sizes that do not fit the cache") {
  room r;
  auto const both = [&](auto change, std::string const& what, std::string const& remedy) {
    auto w = r.c.gate.weights();
    change(w);
    auto const e = kvevict::prompt(r.cache.view, r.x.rows());
    r.refuses(presets::attention_gate(w), e, what, remedy);
    r.ignores(presets::attention_gate(w), e, what, remedy);
  };
  both([](auto& w) { w = {}; }, "a weight is missing", "give q, k, v, o and bias");
  both([](auto& w) { w.o = nullptr; }, "a weight is missing", "give q, k, v, o and bias");
  both([](auto& w) { w.type = kvevict::dtype::i32; }, "their type i32", "give");
  both([](auto& w) { w.heads = 0; }, "0 gate heads", "give sizes above 0");
  both([](auto& w) { w.flags = 3; }, "3 flags for 2 KV heads", "one per query head");
  auto const e = kvevict::prompt(r.cache.view, r.x.rows());
  auto const other = r.c.policy({.sees = static_cast<gate_mask>(7)});
  r.refuses(other, e, "a mask that there is not", "give gate_mask::causal");
  r.ignores(other, e, "a mask that there is not", "give gate_mask::causal");
}
TEST_CASE("bad input: a bidirectional gate in chunks") {
  room r;
  presets::attention_gate_options const o{.sees = gate_mask::bidirectional};
  hidden const first = r.c.gate.states({0, 0}, {10, 10}), next = r.c.gate.states({10, 10}, {40, 30});
  for (auto& n : r.cache.lengths()) n = 10;
  kvevict::observe(r.ctx, r.c.policy(o), kvevict::prompt(r.cache.view, first.rows(r.memory.view())), no_cap);
  r.memory.tokens = {10, 10};
  r.cache.lengths() = {40, 40, 30, 30};
  r.ignores(r.c.policy(o), kvevict::prompt(r.cache.view, next.rows(r.memory.view())),
            "sequence 0 continues after 10 tokens", "use gate_mask::causal for chunks");
}
TEST_CASE("a gate takes a whole prompt beside a sequence that is idle or kept whole, whatever its memory holds") {
  room r;
  presets::attention_gate_options const o{.sees = gate_mask::bidirectional};
  hidden const second = r.c.gate.states({0, 0}, {0, 30});
  r.memory.tokens = {40, 0};
  CHECK_NOTHROW(
      kvevict::observe(r.ctx, r.c.policy(o), kvevict::prompt(r.cache.view, second.rows(r.memory.view())), no_cap));
  std::uint8_t const whole[] = {1, 0};
  auto const e = kvevict::prompt(r.cache.view, second.rows(r.memory.view()));
  auto const keep = kvevict::plan(r.ctx, r.c.policy(), e, {.tokens_per_head = budget::no_cap, .whole = whole});
  CHECK(keep(0, 0).size == 40);
}

TEST_CASE("bad input: a gate with NaN says so, state and memory are as they were") {
  for (int const where : {0, 1, 2, 3}) {
    room r;
    double const nan = std::numeric_limits<double>::quiet_NaN();
    if (where == 0) r.c.gate.gate.wk[3] = nan;
    if (where == 1) r.c.gate.gate.wo[3] = nan;
    if (where == 2) r.c.gate.gate.bias[1] = nan;
    if (where == 3) r.c.gate.X[1][29][23] = nan;
    r.c.gate.store();
    r.x = r.c.prompt();
    auto const e = kvevict::prompt(r.cache.view, r.x.rows());
    r.refuses(r.c.policy(), e, "a keep probability is not a number", "look for values that are not finite");
    r.ignores(r.c.policy(), e, "a keep probability is not a number", "look for values that are not finite");
    std::fill(r.memory.rows.begin(), r.memory.rows.end(), 0.25f);
    auto const before = r.memory.rows;
    r.ignores(r.c.policy(), kvevict::prompt(r.cache.view, r.x.rows(r.memory.view())),
              "a keep probability is not a number", "look for values that are not finite");
    CHECK(r.memory.rows == before);
  }
}
TEST_CASE("bad input: a gate plans from a state that was never observed, or observes without one") {
  room r;
  r.cache.fill(kvevict::role::state,
               [](int b, int h, int t, int) { return b == 1 && h == 0 && t == 9 ? garbage : 0.1f; });
  r.refuses(r.c.policy(), kvevict::remembered(r.cache.view), "token 9 of sequence 1, head 0 in layer 0 is NaN",
            "look for values that are not finite");
  auto none = r.cache.view;
  none.component_count = 0;
  for (auto const& component : r.cache.view)
    if (component.what != kvevict::role::state) none = none.with(component);
  r.refuses(r.c.policy(), kvevict::remembered(none), "role::state", "cache.with(");
  r.ignores(r.c.policy(), kvevict::prompt(none, r.x.rows()), "role::state component of 1 f32", "cache.with(component)");
}
TEST_CASE("bad input: a chunk of a gate for scattered rows") {
  room r;
  auto const scattered = r.cache.view.with_order(kvevict::row_order::scattered);
  hidden const two = r.c.gate.states({38, 28}, {40, 30}), one = r.c.gate.states({39, 30}, {40, 30});
  r.memory.tokens = {38, 28};
  std::fill(r.memory.rows.begin(), r.memory.rows.end(), 0.5f);
  r.ignores(r.c.policy(), kvevict::prompt(scattered, two.rows(r.memory.view())), "the rows are scattered",
            "observe single steps");
  r.memory.tokens = {39, 30};
  CHECK_NOTHROW(kvevict::observe(r.ctx, r.c.policy(), kvevict::step(scattered, one.rows(r.memory.view())), no_cap));
}

}  // namespace policy_gate_test
