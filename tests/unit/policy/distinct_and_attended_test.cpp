// SPDX-License-Identifier: Apache-2.0
// Our preset as it is by default, on rotated caches of any layout, against a reference in double: unrotated cosines and
// the largest attention of a window, shares in turn, one threshold of each over heads or a stack, what is protected.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/reference_keys.hpp"
#include "support/reference_shares.hpp"
#include "support/ropes.hpp"

namespace policy_distinct_and_attended_test {

using namespace support;

namespace {

/// The largest attention of the last 32 rows of any query head of a group to every token.
rows attention_of(reference::layer const& in) {
  rows out(in.H(), reference::row(in.N(), 0.0));
  for (std::size_t hq = 0; hq < in.Hq(); ++hq)
    for (std::size_t i = in.N() - 32; i < in.N(); ++i) {
      auto const a = reference::attention_row(in, hq, i);
      reference::row& most = out[in.kv_head(hq)];
      for (std::size_t j = 0; j < a.size(); ++j) most[j] = std::max(most[j], a[j]);
    }
  return out;
}

/// What is known of the rows that share a budget, all equally long: a sequence's heads in a layer, or in a whole stack.
struct known {
  rows distinct{}, attended{};

  /// Keys were `plain` before their rotation.
  void add(reference::layer const& plain, reference::layer const& turned) {
    for (auto& r : reference::key_diversity(plain)) distinct.push_back(r);
    for (auto& r : attention_of(turned)) attended.push_back(r);
  }
  /// Where cosines are off by about so much, and weights so much of themselves; then none is below the mean of those
  /// before the recent tokens.
  [[nodiscard]] index_rows keep(std::size_t budget, double noise, std::uint64_t seed) const {
    reference::generator by(seed);
    std::size_t const N = distinct[0].size(), share = (budget * 150 + 999) / 1000,
                      recent = std::max<std::size_t>(1, std::min(share, budget - 4));
    if (N <= budget) return reference::identity(distinct.size(), N);
    reference::evictable const where(N, {4, recent, 0});
    rows keys = distinct, weights = attended;
    for (auto& r : keys)
      for (double& x : r) x += noise * by.normal();
    for (auto& r : weights) {
      r.resize(where.end);
      double mean = 0;
      for (double& x : r) x *= 1 + noise * by.normal(), mean += x / static_cast<double>(where.end);
      for (double& x : r) x = std::max(x, mean);
    }
    return reference::keep_in_turn({keys, weights}, {600, 400}, budget, where, 100);
  }
};

reference::layer turned_by(known_rope const& rope, reference::layer in) {
  for (std::size_t h = 0; h < in.H(); ++h)
    for (std::size_t t = 0; t < in.N(); ++t) {
      auto const k = reference::token_row(in.keys, h, t);
      auto const x = rope.turned({k.begin(), k.end()}, static_cast<reference::real>(t));
      for (std::size_t d = 0; d < x.size(); ++d) in.keys.at(h, t, d) = static_cast<double>(static_cast<float>(x[d]));
    }
  return in;
}

}  // namespace

TEST_CASE("distinct_and_attended keeps by default what its parts, each in double, make of a layer or a stack") {
  known_rope const rope{"", kvevict::rope{10000}, {}, 16};
  int compared = 0, close = 0;
  for (std::uint64_t seed = 1; seed <= 16; ++seed) {
    reference::generator random(seed);
    bool const stacked = seed % 4 == 0;
    std::vector<std::size_t> N;
    for (int i = 0; i < 3; ++i) N.push_back(stacked && i > 0 ? N[0] : 40 + random.below(160));
    batch const in = random_batch(seed, {.Hq = 4, .H = 2, .D = 16, .N = N, .future = 0});
    std::vector<known> of(stacked ? 1 : 3);
    batch turned = in;
    for (std::size_t b = 0; b < in.B(); ++b) {
      turned.layers[b] = turned_by(rope, in.layers[b]);
      of[stacked ? 0 : b].add(in.layers[b], turned.layers[b]);
    }
    attention const all = all_rows(turned);
    layouts::cache_shape shape = cache_shape_of(in);
    shape.page_size = 1 << random.below(6);
    auto const some = layouts::all[random.below(std::size(layouts::all))];
    with_cache(stacked ? layouts::layout::head_pages : some, shape, turned, [&](auto& cache) {
      cache.view.components[0] = cache.view.components[0].turned(kvevict::rotation::rope);
      auto view = cache.view.with_capability({.masked = true});
      if (stacked) view.pages.layers = 3, view.pages.layer_stride = view.pages.seq_stride;
      kvevict::host ctx;
      auto const budget = static_cast<std::size_t>(24 + random.below(60));
      auto const e = kvevict::prompt(view, all.queries()).with_rope(rope.ours);
      kvevict::budget const ask{.tokens_per_head = int32(budget), .layer_count = stacked ? 3 : 1};
      auto const policy = kvevict::presets::distinct_and_attended();
      auto const keep = seed % 2 == 0 ? plan(ctx, policy, e.with_lse(all.lse.data(), all.lse_stride(), 1), ask)
                                      : plan(ctx, policy, e, ask);
      for (std::size_t i = 0; i < of.size(); ++i) {
        CAPTURE(seed, i, N, budget, cache.name(), shape.page_size);
        auto const want = of[i].keep(budget, 0, 1);
        bool sure = true;  // nothing hangs on what float does not tell
        for (std::uint64_t other = 2; other < 5; ++other) sure = sure && of[i].keep(budget, 3e-6, other) == want;
        ++(sure ? compared : close);
        index_rows got;
        for (std::size_t b = i; b < (stacked ? in.B() : i + 1); ++b)
          for (auto const& r : rows_of_sequence(keep, b)) got.push_back(r);
        if (sure) CHECK(got == want);
      }
    });
  }
  CAPTURE(compared, close);
  CHECK(compared > 30);
}

}  // namespace policy_distinct_and_attended_test
