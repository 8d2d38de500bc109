// SPDX-License-Identifier: Apache-2.0
// Every preset with select::pages: whole pages, exact counts, the best of what is not protected, known before a plan is
// made.
#include "support/allocations.hpp"
#include "support/whole_pages.hpp"

namespace pages_test {

using namespace support;

namespace {

/// What plan_counts says is what the plan left.
template <class Policy>
void expect_counts(kvevict::host& ctx, Policy const& p, kvevict::layer_view<> const& v, kvevict::budget const& b,
                   kvevict::keep_set const& keep) {
  auto const counts = plan_counts(ctx, p, v, b);
  bool const by_scores = turns::kind::of(p).by_scores;
  for (std::int32_t s = 0; s < keep.sequences; ++s) {
    std::int64_t sum = 0;
    for (std::int32_t h = 0; h < keep.heads; ++h) {
      sum += keep(s, h).size;
      CAPTURE(s, h);
      if (counts(s, h) != kvevict::planned_counts::by_scores)
        CHECK(counts(s, h) == keep(s, h).size);
      else
        CHECK((Policy::budgets != kvevict::sharing::none || by_scores));
    }
    std::int64_t const known = counts.sequences[static_cast<std::size_t>(s)];
    if (known != kvevict::planned_counts::by_scores || !(by_scores || Policy::budgets == kvevict::sharing::cap))
      CHECK(known == sum);
  }
}

}  // namespace

TEST_CASE("laws: with select::pages every preset keeps whole pages, and as many as its budget holds") {
  turns::for_each_policy([&](char const* name, auto const& policy) {
    std::int64_t planned = 0;
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      CAPTURE(name);
      kvevict::host ctx;
      std::deque<std::vector<std::byte>> memory;
      whole_pages::check(
          policy, seed, [&](auto const& x) { return together::keep_bytes(memory, x); },
          [&](auto const& p, auto const& view, kvevict::budget const& b) {
            whole_pages::answer out;
            out.refused = refusal([&] { plan(ctx, p, kvevict::contents(view), b, out.keep); });
            if (out.refused.empty())
              expect_counts(ctx, p, view, b, out.keep);
            else
              CHECK(refusal([&] { plan_counts(ctx, p, view, b); }) == out.refused);
            return out;
          },
          planned);
    }
    CAPTURE(name, planned);
    CHECK(planned > 60);
  });
}

TEST_CASE("laws: select::pages keeps its scratch within workspace_bytes, and takes no memory after the first call") {
  turns::for_each_policy([&](char const* name, auto const& tokens) {
    auto const policy = tokens.with(kvevict::select::pages{});
    for (std::int32_t const P : {2, 3, 16}) {
      reference::generator random(9);
      whole_pages::model m;
      m.S = 2, m.H = 3, m.P = P, m.lengths = {300, 299, 40, 17, 0, 256};
      m.make_table(random);
      std::deque<std::vector<std::byte>> memory;
      auto const view = m.view([&](auto const& x) { return together::keep_bytes(memory, x); });
      kvevict::host ctx;
      kvevict::keep_set out;
      kvevict::budget const ask{.tokens_per_head = 90};
      plan(ctx, policy, kvevict::contents(view), ask, out);
      CAPTURE(name, P);
      CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
            workspace_bytes(ctx, policy, {2, 3, 3, 1, 300, m.pool, m.pool}));
      auto const before = allocations();
      plan(ctx, policy, kvevict::contents(view), ask, out);
      CHECK(allocations() == before);
    }
  });
}

}  // namespace pages_test
