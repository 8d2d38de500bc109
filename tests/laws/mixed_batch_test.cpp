// SPDX-License-Identifier: Apache-2.0
// Batches that mix idle, decoding, chunked, padded, windowed and scattered sequences over all layouts are what the same
// sequences are alone, from packed rows.
#include "support/mixed_batch.hpp"

#include <kvevict/presets/snapkv.hpp>

namespace mixed_batch_test {

using namespace support;

namespace {

auto const put = [](auto const& x) { return x.data(); };

auto const see = [](auto const& policy, auto& cache, placed_rows const& rows, random_mix const& m, std::size_t first) {
  kvevict::host ctx;
  kvevict::budget const ask{.tokens_per_head = 16};
  auto const observe = [&](auto const& of) {
    kvevict::observe(ctx, policy, kvevict::step(cache.view, of).with_visibility(m.sight_of(first, put)), ask);
  };
  if (m.as == form::weights)
    observe(rows.rows(put));
  else
    observe(m.as == form::lse ? rows.with_lse(put) : rows.queries(put));
};

}  // namespace

TEST_CASE("laws: what sequences of any kind are observed to together is what each of them is alone") {
  for (std::uint64_t seed = 500; seed < 620; ++seed) {
    random_mix const m = random_mix::of(seed);
    if (seed % 2 == 0)
      lies_anywhere(m, kvevict::presets::h2o(), see);
    else
      lies_anywhere(m, kvevict::presets::ahakv({.recent = static_cast<std::int32_t>(1 + seed % 9)}), see);
  }
}

TEST_CASE("laws: what sequences of any kind keep together is what each of them keeps alone") {
  auto const policy = kvevict::presets::snapkv({.window = 4, .pool = 3});
  for (std::uint64_t seed = 620; seed < 700; ++seed) {
    random_mix const m = random_mix::of(seed);
    if (m.batch.of.scattered) continue;  // a window needs an order
    mixed_batch b = m.batch;
    for (std::size_t i = 0; i < b.in.B(); ++i)
      b.of.fresh[i] = std::max(b.of.fresh[i], std::min<std::size_t>(4, b.of.tokens[i]));
    CAPTURE(seed, static_cast<int>(m.layout), static_cast<int>(m.place.how), b.of.tokens, b.of.fresh);
    std::vector<std::vector<float>> all;
    auto const plan = [&](placing const& where, std::size_t first) {
      return [&, where, first](auto& cache, attention const& rows) {
        kvevict::host ctx;
        placed_rows const in(rows, where);
        auto const scores = [&](auto const& e) {
          all.emplace_back();
          kvevict::scores(ctx, policy, e.with_visibility(m.sight_of(first, put)), {.tokens_per_head = 12}, all.back());
        };
        if (m.as == form::weights)
          scores(kvevict::prompt(cache.view, in.rows(put)));
        else
          scores(kvevict::prompt(cache.view, m.as == form::lse ? in.with_lse(put) : in.queries(put)));
      };
    };
    states_after(b, m.layout, 1, 0, b.in.B(), plan(m.place, 0));
    std::vector<float> one_by_one;
    for (std::size_t i = 0; i < b.in.B(); ++i) {
      states_after(b, m.layout, 1, i, 1, plan({}, i));
      one_by_one.insert(one_by_one.end(), all.back().begin(), all.back().end());
    }
    CHECK(all[0] == one_by_one);
  }
}

}  // namespace mixed_batch_test
