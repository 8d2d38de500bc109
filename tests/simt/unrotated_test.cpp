// SPDX-License-Identifier: Apache-2.0
// Scores of keys before rotation: one text, the same tokens stay on the host and on a device.
#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/ropes.hpp"

namespace unrotated_test {

using namespace simt_test;
using kvevict::role;
using kvevict::rotation;

namespace {

/// Of keys that every small rope has turned: the scores of a device are the host's to `tolerance`, and the same tokens
/// stay.
template <class Policy> void alike(Policy const& policy, double tolerance) {
  layouts::cache_shape shape;
  shape.lengths = {300, 9, 0, 41}, shape.heads = 2, shape.head_dim = 24;
  for (support::known_rope const& r : support::small_ropes())
    for (layouts::layout const l : {layouts::layout::nhd, layouts::layout::x_packed, layouts::layout::pointers}) {
      shape.type = l == layouts::layout::nhd ? kvevict::dtype::f32 : kvevict::dtype::f16;
      if (r.width == 2 && l != layouts::layout::nhd) continue;
      layouts::with_layout(l, shape, [&](auto& cache) {
        CAPTURE(r.name, r.width, r.interleaved(), cache.name());
        using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
        reference::generator random(5);
        cache.fill([&](int, int, int, int) { return random.normal(); }, [](int, int, int, int) { return 0.0f; });
        cache.fill(role::position, [](int, int, int t, int) { return 900000 + 17 * t; });
        cache.view.components[0] = cache.view.components[0].turned(rotation::rope);
        auto const budget = kvevict::budget{.tokens_per_head = 20};
        auto const evidence = [&](auto const& view) { return kvevict::contents(view).with_rope(r.ours); };
        kvevict::host host;
        std::vector<float> want, got;
        kvevict::scores(host, policy, evidence(cache.view), budget, want);
        device_cache<entry> there(cache);
        kvevict::cuda::device ctx(default_stream());
        kvevict::scores(ctx, policy, evidence(there.view), budget, got);
        REQUIRE(got.size() == want.size());
        double worst = 0;
        for (std::size_t i = 0; i < want.size(); ++i)
          worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
        CHECK(worst < tolerance);
        auto const kept = kvevict::plan(host, policy, evidence(cache.view), budget),
                   kept_there = kvevict::plan(ctx, policy, evidence(there.view), budget).read(ctx);
        CHECK(kept_there.tokens == kept.tokens);
      });
    }
}

}  // namespace

TEST_CASE("diversity of unrotated keys keeps the same tokens on the host and on a device") {
  alike(kvevict::presets::keydiff({.sinks = 2, .recent = 6, .keys = kvevict::score::keys::unrotated}), 1e-6);
}

TEST_CASE("distance of unrotated keys from their mean keeps the same tokens on the host and on a device") {
  alike(kvevict::presets::manifoldkv({.sinks = 2, .recent = 6, .window = 32, .keys = kvevict::score::keys::unrotated}),
        1e-5);
}

TEST_CASE("leverage of unrotated keys keeps the same tokens on the host and on a device") {
  alike(kvevict::presets::leverage({.sinks = 2, .recent = 6}), 1e-5);
}

TEST_CASE("distinct_keys keeps the same tokens of unrotated keys on the host and on a device") {
  alike(kvevict::presets::distinct_keys({.sinks = 2}).with(kvevict::heads::uniform{}), 1e-6);
}

TEST_CASE("spans of distinct keys are the same tokens on the host and on a device") {
  auto const distinct = kvevict::presets::distinct_keys({.sinks = 2}).with(kvevict::heads::uniform{});
  alike(distinct.with(kvevict::score::pooled{distinct.score, {5, kvevict::pooling::max}}), 1e-6);
}

}  // namespace unrotated_test
