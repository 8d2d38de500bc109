// SPDX-License-Identifier: Apache-2.0
// Our preset as it is by default, on rotated caches of any layout, against a reference in double: unrotated cosines and
// pooled attention of a window, shares in turn, exact Ada in each, the newest quarter.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/reference_keys.hpp"
#include "support/reference_shares.hpp"
#include "support/ropes.hpp"

using namespace support;

namespace {

/// Mean attention of the last 32 rows to every token.
rows attention_of(reference::layer const& in) {
  rows all;
  for (std::size_t hq = 0; hq < in.Hq(); ++hq) {
    reference::row mean(in.N(), 0.0);
    for (std::size_t i = in.N() - 32; i < in.N(); ++i) {
      auto const a = reference::attention_row(in, hq, i);
      for (std::size_t j = 0; j < a.size(); ++j) mean[j] += a[j] / 32;
    }
    all.push_back(mean);
  }
  return reference::reduce_group(all, in.H(), reference::reduce::mean);
}

/// What is known of a sequence whose keys were `plain` before their rotation.
struct known {
  rows distinct, attended;

  known(reference::layer const& plain, reference::layer const& turned)
      : distinct(reference::key_diversity(plain)), attended(attention_of(turned)) {}

  /// Where cosines are off by about so much, and weights so much of themselves, before they are pooled by max over 7
  /// of the tokens that are not recent.
  [[nodiscard]] index_rows keep(std::size_t budget, double noise, std::uint64_t seed) const {
    reference::generator by(seed);
    std::size_t const N = distinct[0].size(), recent = std::max<std::size_t>(1, std::min((budget + 3) / 4, budget - 4));
    if (N <= budget) return reference::identity(distinct.size(), N);
    reference::evictable const where(N, {4, recent, 0});
    rows keys = distinct, weights = attended;
    for (auto& r : keys)
      for (double& x : r) x += noise * by.normal();
    for (auto& r : weights) {
      r.resize(where.end);
      for (double& x : r) x *= 1 + noise * by.normal();
    }
    return reference::keep_in_turn({keys, reference::pooled(weights, 7, reference::pool::max)}, {700, 300}, budget,
                                   where, 200);
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

TEST_CASE("distinct_and_attended keeps by default what its parts, each in double, make of a prompt") {
  known_rope const rope{"", kvevict::rope{10000}, {}, 16};
  int compared = 0, close = 0;
  for (std::uint64_t seed = 1; seed <= 16; ++seed) {
    reference::generator random(seed);
    std::vector<std::size_t> N;
    for (int i = 0; i < 3; ++i) N.push_back(40 + random.below(160));
    batch const in = random_batch(seed, {.Hq = 4, .H = 2, .D = 16, .N = N, .future = 0});
    std::vector<known> of;
    batch turned = in;
    for (std::size_t b = 0; b < in.B(); ++b)
      turned.layers[b] = turned_by(rope, in.layers[b]), of.emplace_back(in.layers[b], turned.layers[b]);
    attention const all = all_rows(turned);
    layouts::cache_shape shape = cache_shape_of(in);
    shape.page_size = 1 << random.below(6);
    with_cache(layouts::all[random.below(std::size(layouts::all))], shape, turned, [&](auto& cache) {
      cache.view.components[0] = cache.view.components[0].turned(kvevict::rotation::rope);
      auto const view = cache.view.with_capability({.masked = true});
      kvevict::host ctx;
      auto const budget = static_cast<std::size_t>(24 + random.below(60));
      auto const e = kvevict::prompt(view, all.queries()).with_rope(rope.ours);
      kvevict::budget const ask{.tokens_per_head = int32(budget)};
      auto const policy = kvevict::presets::distinct_and_attended();
      auto const keep = seed % 2 == 0 ? plan(ctx, policy, e.with_lse(all.lse.data(), all.lse_stride(), 1), ask)
                                      : plan(ctx, policy, e, ask);
      for (std::size_t b = 0; b < in.B(); ++b) {
        CAPTURE(seed, b, N[b], budget, cache.name(), shape.page_size);
        auto const want = of[b].keep(budget, 0, 1);
        bool sure = true;  // nothing hangs on what float does not tell
        for (std::uint64_t i = 2; i < 5; ++i) sure = sure && of[b].keep(budget, 3e-6, i) == want;
        ++(sure ? compared : close);
        if (sure) CHECK(rows_of_sequence(keep, b) == want);
      }
    });
  }
  CAPTURE(compared, close);
  CHECK(compared > 36);
}
