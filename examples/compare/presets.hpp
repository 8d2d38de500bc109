// SPDX-License-Identifier: Apache-2.0
// The presets side by side: those that a prompt's own evidence is enough for.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/kvevict.hpp>

namespace compare {

/// Protection that every policy of a fair comparison shares, besides what it brings itself.
struct structure {
  int sinks = 0, recent = 32;
};

/// f(name, policy) for every such preset.
template <class F> void for_each_preset(structure s, std::uint64_t seed, F&& f) {
  using namespace kvevict::presets;
  namespace heads = kvevict::heads;
  f("full", full());
  f("random", random({.seed = seed, .sinks = s.sinks, .recent = s.recent}));
  f("streaming_llm", streaming_llm());
  f("keydiff", keydiff({.sinks = s.sinks, .recent = s.recent}));
  f("knorm", knorm({.sinks = s.sinks, .recent = s.recent}));
  f("manifoldkv", manifoldkv({.sinks = s.sinks, .recent = s.recent}));
  f("leverage", leverage({.sinks = s.sinks, .recent = s.recent}));
  f("capkv", capkv({.sinks = std::max(s.sinks, 4), .recent = s.recent}));
  f("expected_attention", expected_attention({.sinks = std::max(s.sinks, 4), .recent = s.recent}));
  f("lagkv", lagkv({.lag = s.recent, .sinks = s.sinks}));
  f("h2o", h2o({.sinks = s.sinks}));
  f("snapkv", snapkv({.window = s.recent, .sinks = s.sinks}));
  f("tova", tova({.sinks = s.sinks, .recent = s.recent}));
  f("dropkv", dropkv({.window = s.recent, .sinks = s.sinks}));
  f("defensivekv", defensivekv({.window = s.recent, .sinks = s.sinks}));
  f("layer_defensivekv", layer_defensivekv({.window = s.recent, .sinks = s.sinks}));
  f("cake", cake({.window = s.recent, .sinks = s.sinks}));
  f("criticalkv", criticalkv({.window = s.recent, .sinks = s.sinks}));
  f("ada_criticalkv", ada_criticalkv({.window = s.recent, .sinks = s.sinks}));
  f("lava", lava({.window = s.recent, .sinks = s.sinks}));
  f("rkv", rkv({.window = s.recent, .sinks = s.sinks}));
  f("chunkkv", chunkkv({.window = s.recent, .sinks = s.sinks}));
  f("ahakv", ahakv({.recent = s.recent, .sinks = s.sinks}));
  f("pyramidkv", pyramidkv({.window = s.recent, .sinks = s.sinks}));
  f("ada_snapkv", ada_snapkv({.window = s.recent, .sinks = s.sinks}));
  f("distinct_keys", distinct_keys({.sinks = std::max(s.sinks, 4)}));
  distinct_and_attended_options const ours{.window = s.recent, .sinks = std::max(s.sinks, 4)};
  f("distinct_and_attended", distinct_and_attended(ours));
  f("distinct_and_attended/layer_by_layer", distinct_and_attended(ours).with(heads::adaptive{ours.floor_permille}));
  f("distinct_and_attended/equal_counts", distinct_and_attended(ours).with(heads::uniform{}));
  f("distinct_and_attended/one_set", distinct_and_attended(ours).with(heads::together{}));
  f("ada_pyramidkv", ada_pyramidkv({.window = s.recent, .sinks = s.sinks}));
}

}  // namespace compare
