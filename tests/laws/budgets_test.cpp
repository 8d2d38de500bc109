// SPDX-License-Identifier: Apache-2.0
// Budgets over turns, layers and ragged heads: the sums are exact, whatever has been evicted before, and known before
// a plan is made.
#include "support/turns.hpp"

namespace budgets_test {

using namespace support;

namespace {

std::uint64_t constexpr seeds = 12;

/// Tokens kept of each row, (L·H), when one sequence's layers are one view.
template <class Policy>
std::vector<std::int32_t> kept_of(Policy const& policy, std::vector<std::int32_t> const& N, std::int32_t layers,
                                  std::int32_t budget) {
  turns::shape const m{layers, 1, int32(N.size()) / layers, 200};
  std::vector<std::int32_t> const keys(N.size() * 200);
  kvevict::host ctx;
  auto const keep = plan(ctx, policy, kvevict::contents(turns::view_of(m, N.data(), layers, keys.data())),
                         {.tokens_per_head = budget, .layer_count = layers});
  std::vector<std::int32_t> out;
  for (std::int64_t r = 0; r < keep.rows(); ++r) out.push_back(static_cast<std::int32_t>(keep.row(r).size));
  return out;
}

/// What was known before: rows, or at least what the heads of a sequence have together.
template <class Policy>
void expect_counts(Policy const& policy, kvevict::host& ctx, kvevict::layer_view<> const& view,
                   kvevict::budget const& b, kvevict::keep_set const& keep) {
  auto const counts = plan_counts(ctx, policy, view, b);
  REQUIRE(counts.rows.size() == static_cast<std::size_t>(keep.rows()));
  REQUIRE(counts.sequences.size() == static_cast<std::size_t>(keep.sequences));
  for (std::int32_t s = 0; s < keep.sequences; ++s) {
    std::int64_t sum = 0;
    bool cut = false;
    for (std::int32_t h = 0; h < keep.heads; ++h) {
      std::int64_t const kept = keep(s, h).size;
      sum += kept, cut = cut || kept < view.length(s, h);
      bool const known = counts(s, h) != kvevict::planned_counts::by_scores;
      CAPTURE(s, h, kept, counts(s, h));
      CHECK((known ? counts(s, h) == kept
                   : Policy::budgets != kvevict::sharing::none || turns::kind::of(policy).by_scores));
    }
    auto const i = static_cast<std::size_t>(s);
    bool const by_scores = Policy::budgets == kvevict::sharing::cap || turns::kind::of(policy).by_scores;
    if (!by_scores || counts.sequences[i] != kvevict::planned_counts::by_scores) CHECK(counts.sequences[i] == sum);
    for (std::int32_t h = 0; h < keep.heads && !cut && !by_scores && Policy::budgets == kvevict::sharing::heads; ++h)
      CHECK(counts(s, h) == view.length(s, h));
  }
}

}  // namespace

TEST_CASE("laws: budgets are exact over 20 turns, in every form of the layers and with ragged heads") {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed)
    for (turns::form const how : turns::forms)
      turns::for_each_policy([&](char const* name, auto const& policy) {
        CAPTURE(name);
        kvevict::host ctx;
        std::deque<std::vector<std::int32_t>> memory;
        turns::run(
            policy, seed, how, [&](std::vector<std::int32_t> const& x) { return memory.emplace_back(x).data(); },
            [&](kvevict::layer_view<> const& view, kvevict::budget const& b) {
              auto const keep = plan(ctx, policy, kvevict::contents(view), b);
              expect_counts(policy, ctx, view, b, keep);
              return keep;
            });
      });
}

TEST_CASE("laws: StreamingLLM keeps the newest token, or says that the budget has no room for it") {
  std::vector<std::int32_t> const N{9}, keys(200);
  auto const view = turns::view_of({1, 1, 1, 200}, N.data(), 1, keys.data());
  auto const kept = [&](std::int32_t budget) {
    kvevict::host ctx;
    auto const keep =
        plan(ctx, kvevict::presets::streaming_llm(), kvevict::contents(view), {.tokens_per_head = budget});
    return std::vector<std::int32_t>(keep.row(0).begin(), keep.row(0).end());
  };
  CHECK(kept(5) == std::vector<std::int32_t>{0, 1, 2, 3, 8});
  CHECK_THROWS_AS(kept(4), kvevict::contract_violation);
}

TEST_CASE("laws: two heads of 130 and 30 tokens in two layers keep what is asked") {
  namespace p = kvevict::presets;
  auto const pyramid = p::pyramidkv({.window = 8}).with(turns::noise{3});
  auto const ada = p::ada_pyramidkv({.window = 8}).with(turns::noise{3});
  std::vector<std::int32_t> const N{130, 30, 130, 30};
  auto const rows = kept_of(pyramid, N, 2, 50);
  CHECK(rows[0] + rows[2] == 100);
  CHECK((rows[1] == 30 && rows[3] == 30));  // they fit the head's budget
  auto const shared = kept_of(ada, N, 2, 50);
  CHECK(shared[0] + shared[1] + shared[2] + shared[3] == 200);
  // a head of 30 beside one of 130, under the same budget in every layer
  CHECK(kept_of(p::snapkv({.window = 8}).with(turns::noise{3}), {130, 30}, 1, 50) == std::vector{50, 30});
}

}  // namespace budgets_test
