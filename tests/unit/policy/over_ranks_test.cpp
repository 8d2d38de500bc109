// SPDX-License-Identifier: Apache-2.0
// One threshold over heads of several ranks: bit for bit what one process keeps, for the bytes that are promised.
#include <kvevict/kvevict.hpp>

#include "support/rank_parts.hpp"
#include "support/ranks.hpp"

namespace policy_over_ranks_test {

using namespace support;
using stack_scores::keep_bytes;

namespace {

struct outcome_of {
  std::vector<std::vector<std::int32_t>> rows;  // of all heads
  std::vector<std::vector<std::int64_t>> bytes;
};

/// Every rank plans its heads; ranks begin at heads `first`.
outcome_of plan_over(stack_scores::question const& q, std::vector<std::int32_t> const& first) {
  outcome_of out;
  out.rows.resize(q.m.rows());
  thread_ranks ranks(static_cast<int>(first.size()));
  ranks.run([&](int rank) {
    auto const i = static_cast<std::size_t>(rank);
    std::int32_t const begin = first[i], end = i + 1 < first.size() ? first[i + 1] : q.m.H;
    auto const mine = part(q, begin, end - begin);
    std::deque<std::vector<std::byte>> memory;
    auto const put = [&](auto const& x) { return keep_bytes(memory, x); };
    auto view = mine.m.view(put);
    if (q.scattered) view = view.with_order(kvevict::row_order::scattered);
    kvevict::host ctx;
    auto const sum = ranks.sum(rank);
    std::vector<std::int32_t> lengths;
    auto const ask = budget_of_ranks(
        ctx, view, {.layer_count = q.m.L, .per_sequence = q.budgets.data(), .head = begin, .head_count = q.m.H}, sum,
        lengths);
    kvevict::policy const policy =
        kvevict::policy{stack_scores::given{put(mine.scores), mine.m.room}, q.protects()}.with(
            kvevict::heads::over_ranks{sum, q.m.H, q.floor_permille});
    auto const promised = kvevict::workspace_bytes(
        ctx, policy, {view.sequences(), std::max(1, end - begin), std::max(1, end - begin), 1, 64, 0, 0});
    auto const keep = plan(ctx, policy, kvevict::contents(view), ask);
    if (static_cast<std::int64_t>(ctx.scratch().high_water()) > promised) std::abort();
    for (std::int64_t r = 0; r < keep.rows(); ++r) {
      auto const row = keep.row(r);
      std::int64_t const b = r / mine.m.H, h = begin + r % mine.m.H;
      out.rows[static_cast<std::size_t>(b * q.m.H + h)].assign(row.begin(), row.end());
    }
  });
  out.bytes = ranks.bytes;
  return out;
}

}  // namespace

TEST_CASE("ranks keep what one process keeps, bit for bit") {
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    auto const q = stack_scores::random_question(seed, 4, 6);
    auto const want = stack_scores::expected(q);
    std::int32_t const H = q.m.H;
    for (std::vector<std::int32_t> const& first :
         {std::vector{0}, std::vector{0, H / 2}, std::vector{0, H / 4, H / 2, H - H / 3}}) {
      CAPTURE(seed, q.m.L, q.m.S, H, first, q.floor_permille, q.scattered);
      CHECK(plan_over(q, first).rows == want);
    }
  }
}

TEST_CASE("a plan over ranks hands over the bytes that are promised, and only counts where all is kept") {
  bool ties = false, cuts = false;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    auto q = stack_scores::random_question(seed, 4, 6);
    std::int64_t const rows = std::int64_t{q.m.L} * q.m.S * q.m.H, S = q.m.S;
    for (bool const whole : {false, true}) {
      if (whole) std::fill(q.budgets.begin(), q.budgets.end(), 64);
      auto const got = plan_over(q, {0, q.m.H / 2}).bytes;
      CHECK(got[0] == got[1]);
      std::vector<std::int64_t> const lengths{8 * rows}, first{16 * rows}, digits{S * 16384, S * 16384, S * 8192};
      auto const joined = [](auto const&... parts) {
        std::vector<std::int64_t> out;
        (out.insert(out.end(), parts.begin(), parts.end()), ...);
        return out;
      };
      bool const all = got[0] == joined(lengths, first), cut = got[0] == joined(lengths, first, digits, first),
                 tied = got[0] == joined(lengths, first, digits, digits, first);
      CAPTURE(seed, whole, got[0]);
      CHECK((whole ? all : all || cut || tied));
      ties = ties || tied, cuts = cuts || cut;
    }
  }
  CHECK((ties && cuts));
}

TEST_CASE("a rank whose heads fit by themselves is cut with the others, and lengths are compared") {
  auto q = stack_scores::random_question(2, 1, 1);
  q.m.L = 1, q.m.S = 1, q.m.H = 2, q.m.lengths = {60, 10}, q.budgets = {20}, q.scattered = false;
  q.scores.clear(), q.m.positions.clear();
  for (int i = 0; i < 128; ++i) q.scores.push_back(i < 64 ? 0.0f : 1.0f), q.m.positions.push_back(i % 64);
  q.floor_permille = 0;
  auto const got = plan_over(q, {0, 1}).rows;
  CHECK((got[0].size() == 30 && got[1].size() == 10));
  q.floor_permille = 200, q.scores.assign(128, 0.0f), q.m.lengths = {60, 25}, q.budgets = {30};
  CHECK(plan_over(q, {0, 1}).rows == stack_scores::expected(q));

  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return keep_bytes(memory, x); };
  auto const view = part(q, 1, 1).m.view(put);
  auto const sum = [](std::uint64_t*, std::int64_t) {};
  auto const policy = kvevict::policy{stack_scores::given{put(q.scores), 64}, q.protects()};
  std::vector<std::int32_t> lengths{60, 24};
  kvevict::budget ask{.tokens_per_head = 30, .lengths = {lengths.data(), 2, 2, 1}, .head = 1, .head_count = 2};
  auto const said = [&](std::int32_t heads) {
    return refusal([&] {
      plan(ctx, policy.with(kvevict::heads::over_ranks{sum, heads}), kvevict::contents(view), ask);
    });
  };
  CHECK(said(2).find("24") != std::string::npos);
  lengths[1] = 25;
  CHECK(said(3).find("over_ranks: the stage says 3 heads of the model, the budget 2") != std::string::npos);
  ask.lengths = {};
  CHECK(said(2).find("the lengths of all heads in budget.lengths") != std::string::npos);
}

TEST_CASE("budget_of_ranks says which heads it cannot place, and exchanges nothing") {
  together::model m;
  m.H = 2, m.lengths = {40, 40};
  std::deque<std::vector<std::byte>> memory;
  auto const view = m.view([&](auto const& x) { return together::keep_bytes(memory, x); });
  kvevict::host ctx;
  std::vector<std::int32_t> lengths{7};
  auto const reduce = [](std::uint64_t*, std::int64_t) { FAIL("an exchange"); };
  for (kvevict::budget const& b :
       {kvevict::budget{.tokens_per_head = 9}, kvevict::budget{.tokens_per_head = 9, .head = 1, .head_count = 2},
        kvevict::budget{.tokens_per_head = 9, .head = -1, .head_count = 4},
        kvevict::budget{.tokens_per_head = 9, .layer = -1, .head_count = 2}})
    CHECK(refusal([&] { (void)budget_of_ranks(ctx, view, b, reduce, lengths); }).find("give budget.head") !=
          std::string::npos);
  CHECK(lengths == std::vector<std::int32_t>{7});
}

}  // namespace policy_over_ranks_test
