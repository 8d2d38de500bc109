// SPDX-License-Identifier: Apache-2.0
// observe() in shards and behind padding on a device, by the host's bodies; refusals in the host's words.
#include "support/by_position.hpp"
#include "simt/scores_alike.hpp"

namespace by_position_test {

using namespace simt_test;

namespace {

template <class Policy, class Rows>
void observe_by(on_gpu& on, Policy const& policy, kvevict::layer_view<> const& view, Rows const& rows,
                kvevict::older_tokens older, std::vector<std::int32_t> const& first) {
  Rows there = on.rows(rows);
  if (!first.empty()) there.sees.first_token = on.put(first);
  kvevict::observe(on.ctx, policy, kvevict::prompt(view, there).with_older(older), {.tokens_per_head = 16});
  on.finish();
}

struct seeing {
  template <class Policy, class Rows>
  void operator()(Policy const& policy, layouts::cache<std::int32_t>& cache, Rows const& rows,
                  kvevict::older_tokens older, std::vector<std::int32_t> const& first) const {
    device_cache<std::int32_t> there(cache);
    on_gpu on;
    observe_by(on, policy, there.view, rows, older, first);
    cache.restore(there.snapshot());
  }
};

}  // namespace

TEST_CASE("by position on a device: a shard observes rows whose tokens other processes hold") {
  shards_observe_by_position(seeing{});
}

TEST_CASE("by position on a device: padding on the left is no token") { padding_is_no_token(seeing{}); }

TEST_CASE("by position on a device: rows behind padding are pooled as on the host") {
  std::vector<std::int32_t> const first{5, 0};
  placed_tokens it(behind_padding(first), 0, true);
  attention const rows = last_rows(it.in, 8);
  auto const alike_behind = [&](auto const& policy) {
    auto const with = [&](auto& on, auto const& evidence) {
      return evidence.with_visibility({.first_token = on.put(first)});
    };
    scores_alike(it.cache, policy,
                 [&](auto& on, auto const& view) { return with(on, prompt(view, on.rows(rows.queries()))); });
  };
  for (std::int32_t const width : {1, 5, 33}) {
    alike_behind(presets::defensivekv({.window = 8, .pool = width}));
    kvevict::pool_options const pool{width, kvevict::pooling::average};
    alike_behind(kvevict::policy{kvevict::score::pooled{kvevict::score::key_norm{}, pool}, kvevict::protect{0, 8}});
  }
  auto const by_pages = kvevict::policy{kvevict::score::key_norm{}, kvevict::protect{}}.with(kvevict::select::pages{});
  alike_behind(by_pages);
  it.cache.fill(role::k,
                [&](int b, int, int t, int d) { return it.at(b, t) < 0 ? no_number : static_cast<float>(t + d); });
  alike_behind(by_pages);
}

TEST_CASE("by position: both contexts refuse rows and new tokens that do not meet") {
  rows_and_tokens_must_meet([](auto& cache, auto const& rows, std::string const& what) {
    alike(cache, what, [&](auto& on, auto const& view) {
      observe(on.ctx, h2o, kvevict::step(view, on.rows(rows)), {.tokens_per_head = 16});
    });
  });
  std::vector<std::int32_t> const first{5, 0};
  placed_tokens padded({std::vector<int>(45, 1), std::vector<int>(30, 1)}, 1, false);
  auto const refuses = [&](auto const& policy, std::string const& what) {
    alike(padded.cache, what, [&](auto& on, auto const& view) {
      kvevict::visibility const sees{.first_token = on.put(first)};
      plan(on.ctx, policy, kvevict::contents(view).with_visibility(sees), {.tokens_per_head = 16});
    });
  };
  refuses(streaming, "plan: the policy protects the first 4 slots");
  refuses(presets::keydiff(), "key_diversity: it reads all slots of a row together");
  attention const rows = all_rows(padded.in);
  alike(padded.cache, "expected_attention: it reads all slots of a row together", [&](auto& on, auto const& view) {
    auto const e = kvevict::prompt(view, on.rows(rows.queries())).with_visibility({.first_token = on.put(first)});
    plan(on.ctx, presets::expected_attention({.sinks = 0}), e, twenty);
  });
}

TEST_CASE("order: a device finds positions that do not ascend behind padding, and none before it") {
  std::vector<std::int32_t> const first{5, 0};
  room r(layout::nhd, 1, 4);
  for (int const wrong : {4, 5, 6, 20, 39}) {
    r.cache.fill(role::position, [=](int b, int, int t, int) {
      return b == 0 && t < 5 ? 9 : t == wrong && b == 0 ? 3 : t;
    });
    std::string const slot = "slot " + std::to_string(wrong) + " of sequence 0, head 0 holds position 3",
                      what = wrong < 6 ? "" : slot;
    alike(r.cache, what, [&](auto& on, auto const& view) {
      kvevict::visibility const sees{.first_token = on.put(first)};
      plan(on.ctx, presets::random({.recent = 3}), kvevict::contents(view).with_visibility(sees), twenty);
    });
  }
}

}  // namespace by_position_test
