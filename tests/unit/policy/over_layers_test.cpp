// SPDX-License-Identifier: Apache-2.0
// One threshold over layers, heads and tokens: brute force, exact sums, floors, and what takes no part.
#include <kvevict/kvevict.hpp>

#include "support/reference_shares.hpp"
#include "support/stack_prefixes.hpp"
#include "support/stack_scores.hpp"

namespace policy_over_layers_test {

using namespace support;
using stack_scores::keep_bytes;

namespace {

struct planned {
  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  stack_scores::question q;

  explicit planned(std::uint64_t seed) : q(stack_scores::random_question(seed)) {}

  template <class T> T* put(std::vector<T> const& x) { return keep_bytes(memory, x); }
  kvevict::layer_view<> view() {
    auto v = q.m.view([&](auto const& x) { return put(x); });
    return q.scattered ? v.with_order(kvevict::row_order::scattered) : v;
  }
  kvevict::budget ask() { return {.layer_count = q.m.L, .per_sequence = put(q.budgets)}; }
  auto policy() {
    return kvevict::policy{stack_scores::given{put(q.scores), q.m.room}, q.protects()}.with(
        kvevict::heads::over_layers{q.floor_permille});
  }
};

}  // namespace

TEST_CASE("one threshold over a stack keeps what sorting all its tokens keeps") {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    kvevict::host ctx;
    std::deque<std::vector<std::byte>> memory;
    stack_scores::check(
        seed, [&](auto const& x) { return keep_bytes(memory, x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          auto keep = plan(ctx, policy, kvevict::contents(view), b);
          kvevict::cache_shape const shape{view.sequences(), view.heads(), view.heads(), 1, 64, 0, 0};
          CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= kvevict::workspace_bytes(ctx, policy, shape));
          return keep;
        });
  }
}

TEST_CASE("the sum over a stack is its budget, each head keeps its floor, and plan_counts knows what it can") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    planned p(seed);
    auto const view = p.view();
    auto const keep = plan(p.ctx, p.policy(), kvevict::contents(view), p.ask());
    auto const counts = plan_counts(p.ctx, p.policy(), view, p.ask());
    for (std::int32_t s = 0; s < p.q.m.S; ++s) {
      std::int64_t kept = 0, held = 0, asked = 0, quota = 0;
      for (std::int32_t b = s; b < view.sequences(); b += p.q.m.S)
        for (std::int32_t h = 0; h < p.q.m.H; ++h) {
          kept += keep(b, h).size, held += view.length(b, h), asked += p.q.budgets[static_cast<std::size_t>(b)];
          quota -= std::min(view.length(b, h), p.q.sinks + p.q.recent);
        }
      CAPTURE(seed, s, held, asked);
      CHECK(kept == std::min(held, asked));
      std::int64_t const base = (quota + asked) / (std::int64_t{p.q.m.L} * p.q.m.H);
      for (std::int32_t b = s; b < view.sequences(); b += p.q.m.S)
        for (std::int32_t h = 0; h < p.q.m.H; ++h) {
          std::int64_t const n = view.length(b, h), fixed = std::min<std::int64_t>(n, p.q.sinks + p.q.recent);
          CHECK(keep(b, h).size >= std::min(n, fixed + p.q.floor_permille * base / 1000));
          CHECK(counts(b, h) == (held <= asked ? n : kvevict::planned_counts::by_scores));
        }
    }
  }
}

TEST_CASE("a view of one layer is divided as by heads::adaptive") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    planned p(seed);
    p.q.m.S *= p.q.m.L, p.q.m.L = 1;  // every layer a sequence
    auto const view = p.view();
    auto const over = plan(p.ctx, p.policy(), kvevict::contents(view), p.ask());
    auto const ada =
        plan(p.ctx, p.policy().with(kvevict::heads::adaptive{p.q.floor_permille}), kvevict::contents(view), p.ask());
    CHECK(over.tokens == ada.tokens);
    CHECK(over.row_begin == ada.row_begin);
  }
}

TEST_CASE("layers that are kept whole take no part in a stack's budget") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    planned p(seed), less(seed);
    if (p.q.m.L < 2) continue;
    auto const S = static_cast<std::size_t>(p.q.m.S);
    std::size_t const out = seed % static_cast<std::size_t>(p.q.m.L), rows = S * static_cast<std::size_t>(p.q.m.H);
    std::vector<std::uint8_t> whole(p.q.budgets.size());
    std::fill_n(whole.begin() + static_cast<std::ptrdiff_t>(out * S), S, std::uint8_t{1});
    auto ask = p.ask();
    ask.whole = whole.data();
    auto const keep = plan(p.ctx, p.policy(), kvevict::contents(p.view()), ask);
    auto const cut = [&](auto& x, std::size_t each) {
      auto const at = x.begin() + static_cast<std::ptrdiff_t>(out * each);
      x.erase(at, at + static_cast<std::ptrdiff_t>(each));
    };
    cut(less.q.m.lengths, rows), cut(less.q.m.positions, rows * 64), cut(less.q.scores, rows * 64);
    cut(less.q.budgets, S), --less.q.m.L;
    auto const want = stack_scores::expected(less.q);
    for (std::size_t r = 0, of = 0; r < p.q.m.rows(); ++r) {
      auto const row = keep.row(static_cast<std::int64_t>(r));
      CAPTURE(seed, out, r);
      if (r / rows == out)
        CHECK(row.size == p.q.m.lengths[r]);
      else
        CHECK(std::vector<std::int32_t>(row.begin(), row.end()) == want[of++]);
    }
  }
}

TEST_CASE("of layers whose prefixes differ each protects its own") {
  stack of(stack_prefixes::input(), stack_prefixes::L, placed::own_tables, true);
  auto const view = of.whole().with_read_only(stack_prefixes::read_only.data());
  auto const scores = stack_prefixes::scores();
  kvevict::host ctx;
  stack_prefixes::check(scores.data(), [&](auto const& policy) {
    return plan(ctx, policy, kvevict::contents(view),
                {.tokens_per_head = stack_prefixes::budget, .layer_count = stack_prefixes::L});
  });
}

TEST_CASE("a layer is measured by its own prefix and length, and one that is kept whole by none") {
  auto const scores = stack_prefixes::scores();
  kvevict::host ctx;
  stack_prefixes::check_sound(
      scores.data(), [&](auto const& policy, stack& of, std::vector<std::int32_t> const& prefixes,
                         std::vector<std::int32_t> const& budgets, std::vector<std::uint8_t> const& whole) {
        return plan(
            ctx, policy, kvevict::contents(of.whole().with_read_only(prefixes.data())),
            {.layer_count = of.L, .per_sequence = budgets.data(), .whole = whole.empty() ? nullptr : whole.data()});
      });
}

TEST_CASE("only the layer whose prefix is beyond the budget is at fault, and the others are divided") {
  stack of(stack_prefixes::input(), stack_prefixes::L, placed::own_tables, true);
  auto const scores = stack_prefixes::scores();
  kvevict::host ctx;
  stack_prefixes::check_outcomes(scores.data(), [&](auto const& policy, std::vector<std::int32_t> const& prefixes,
                                                    std::vector<std::uint8_t> const& whole) {
    std::pair<kvevict::keep_set, std::vector<kvevict::outcome>> out;
    plan(ctx, policy, kvevict::contents(of.whole().with_read_only(prefixes.data())),
         {.tokens_per_head = stack_prefixes::budget, .layer_count = stack_prefixes::L, .whole = whole.data()},
         out.first, out.second);
    return out;
  });
}

TEST_CASE("a stack in whole pages keeps as many pages as its budget holds") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    reference::generator random(seed);
    std::int32_t const L = 1 + int32(random.below(4)), H = 1 + int32(random.below(3)), P = 4, budget = 20;
    std::int32_t const rows = L * H;
    std::vector<std::int32_t> lengths, table;
    for (std::int32_t r = 0; r < rows; ++r) lengths.push_back(int32(random.below(61)));
    for (std::int32_t i = 0; i < rows * 16; ++i) table.push_back(i);
    std::vector<float> scores, keys(static_cast<std::size_t>(rows) * 64);
    for (std::int32_t i = 0; i < rows * 64; ++i) scores.push_back(static_cast<float>(random.normal()));
    kvevict::layer_view<> v;
    v.pages.sequences = L, v.pages.heads = H, v.pages.page_size = P, v.pages.columns = 16, v.pages.layers = L;
    v.pages.head_stride = 16, v.pages.seq_stride = v.pages.layer_stride = 16 * H;
    v.pages.entries = table.data(), v.lengths = {lengths.data(), H, 1};
    kvevict::component k;
    k.rows.base = reinterpret_cast<std::byte*>(keys.data()), k.rows.page_count = rows * 16, k.rows.run_bytes = 4;
    k.rows.slot_stride = 4, k.rows.page_stride = 4 * P, k.rows.head_stride = 0, k.what = kvevict::role::k,
    k.type = kvevict::dtype::f32;
    v = v.with(k);
    kvevict::host ctx;
    auto const keep = plan(ctx,
                           kvevict::policy{stack_scores::given{scores.data(), 64}, kvevict::protect{.recent = 1}}
                               .with(kvevict::heads::over_layers{})
                               .with(kvevict::select::pages{}),
                           kvevict::contents(v), {.tokens_per_head = budget, .layer_count = L});
    std::int64_t held = 0, rests = 0, kept = 0;
    for (std::int32_t r = 0; r < rows; ++r) {
      held += lengths[static_cast<std::size_t>(r)], rests += lengths[static_cast<std::size_t>(r)] % P;
      kept += keep.row(r).size;
    }
    CAPTURE(seed, L, H, lengths);
    CHECK(kept == (held <= rows * budget ? held : (rows * budget - rests) / P * P + rests));
  }
}

TEST_CASE("a floor beyond a thousand and budgets below what is protected are refused") {
  planned p(7);
  auto const view = p.view();
  auto const said = [&](auto const& policy, kvevict::budget const& b) {
    return refusal([&] { plan(p.ctx, policy, kvevict::contents(view), b); });
  };
  CHECK(said(p.policy().with(kvevict::heads::over_layers{1001}), p.ask()).find("over_layers: floor_permille is 1001") !=
        std::string::npos);
  CHECK(said(p.policy(), {.tokens_per_head = 4, .layer_count = p.q.m.L}).find("protected") != std::string::npos);
  auto some = p.ask();
  some.head = 1, some.head_count = p.q.m.H;
  CHECK(said(p.policy(), some).find("give budget.head in [0, head_count)") != std::string::npos);
}

TEST_CASE("a whole is divided by largest remainder, and what parts cannot hold goes to the others in turn") {
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    reference::generator random(seed);
    std::size_t const n = 1 + random.below(12);
    std::int64_t const den = 1 + static_cast<std::int64_t>(random.below(1000));
    std::int64_t sum = 0, room = 0;
    std::vector<std::int64_t> x, caps, scratch(n * kvevict::listed_parts::integers);
    for (std::size_t i = 0; i < n; ++i) {
      x.push_back(static_cast<std::int64_t>(random.below(20000))), sum += x[i];
      caps.push_back(static_cast<std::int64_t>(random.below(60))), room += caps[i];
    }
    x[0] += (den - sum % den) % den, sum += (den - sum % den) % den;
    std::int64_t const total = sum / den;
    caps[random.below(n)] += std::max<std::int64_t>(0, total - room);
    auto const want =
        reference::apportioned(x, den, static_cast<std::size_t>(total), reference::counts(caps.begin(), caps.end()));
    auto const in = [](std::vector<std::int64_t> const& v) {
      return [&v](std::int64_t i) { return v[static_cast<std::size_t>(i)]; };
    };
    auto const out = kvevict::divided(total, den, static_cast<std::int64_t>(n), scratch.data(), in(x), in(caps));
    CAPTURE(seed, x, caps, den, total);
    for (std::size_t i = 0; i < n; ++i)
      CHECK(out.kept(static_cast<std::int64_t>(i)) == static_cast<std::int64_t>(want[i]));
  }
}

}  // namespace policy_over_layers_test
