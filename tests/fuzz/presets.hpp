// SPDX-License-Identifier: Apache-2.0
// The presets with random options. Every one of presets/all.hpp is here: tests/unit/presets_test.cpp looks.
#pragma once

#include "fuzz/policies.hpp"

namespace fuzz {

inline std::int32_t odd(options& n) { return static_cast<std::int32_t>(std::int64_t{n(0, 3)} * 2 + 1); }
inline kvevict::pooling some_pooling(input& in) {
  return in.one_in(2) ? kvevict::pooling::max : kvevict::pooling::average;
}

inline kvevict::score::keys some_keys(input& in) {
  return in.one_in(2) ? kvevict::score::keys::cached : kvevict::score::keys::unrotated;
}

template <class Entry> policy<Entry> choose_window(input& in, options n) {
  namespace p = kvevict::presets;
  std::int32_t const sinks = n(0, 3), recent = n(0, 6), window = n(1, 9);
  auto const kind = some_pooling(in);
  switch (in.below(17)) {
    case 0: return erased<Entry, needs::prompt>(p::snapkv({window, odd(n), kind, sinks}), window);
    case 1: {
      auto const weights = in.one_in(4) ? kvevict::weighting::softmax : kvevict::weighting::step_gain;
      return erased<Entry, needs::prompt>(p::ahakv({window, weights, in.one_in(2) ? 0.0f : 0.5f, odd(n), sinks}),
                                          window);
    }
    case 2: return erased<Entry, needs::prompt>(p::pyramidkv({window, odd(n), n(1, 30), kind, sinks}), window);
    case 3: return erased<Entry, needs::prompt>(p::ada_snapkv({window, odd(n), n(0, 1000), kind, sinks}), window);
    case 4:
      return erased<Entry, needs::prompt>(p::ada_pyramidkv({window, odd(n), n(0, 1000), n(1, 30), kind, sinks}),
                                          window);
    case 5: return erased<Entry, needs::prompt>(p::tova({sinks, recent}), 1);
    case 7: return erased<Entry, needs::prompt>(p::defensivekv({window, odd(n), n(0, 1000), sinks}), window);
    case 8: return erased<Entry, needs::prompt>(p::cake({window, odd(n), 200, sinks}), window);
    case 9: return erased<Entry, needs::prompt>(p::lava({window, odd(n), n(0, 1000), kind, sinks}), window);
    case 10: return erased<Entry, needs::prompt>(p::rkv({window, odd(n), 0.07f, sinks}), window);
    case 12:
      return erased<Entry, needs::prompt>(
          p::distinct_and_attended({window, odd(n), n(0, 1000), sinks, n(0, 300), n(0, 1000), some_keys(in)}), window);
    case 6: {
      auto const of = in.one_in(2) ? kvevict::score::change::renormalised : kvevict::score::change::value;
      return erased<Entry, needs::prompt>(p::dropkv({window, odd(n), kind, of, sinks}), window);
    }
    case 13: {
      float const epsilon = in.one_in(2) ? 1e-4f : 0.0f;
      return erased<Entry, needs::prompt>(p::criticalkv({window, odd(n), n(0, 1000), epsilon, kind, sinks}), window);
    }
    case 14:
      return erased<Entry, needs::prompt>(
          p::ada_criticalkv({window, odd(n), n(0, 1000), n(0, 1000), 1e-4f, kind, sinks}), window);
    case 11: {
      std::int32_t const chunk = n(1, 24), peak = in.one_in(2) ? 0 : n(0, 5);
      return erased<Entry, needs::prompt>(p::chunkkv({window, odd(n), chunk, peak < chunk ? peak : 0, sinks}), window);
    }
    case 15: return erased<Entry, needs::prompt>(p::layer_defensivekv({window, odd(n), n(0, 1000), sinks}), window);
    default: return erased<Entry, needs::future>(p::oracle({window, sinks, recent}), window);
  }
}

template <class Entry> policy<Entry> choose_other(input& in, options n, gate const& g) {
  namespace p = kvevict::presets;
  using kvevict::score::column_norm, kvevict::score::partition_score, kvevict::gate_mask;
  std::int32_t const sinks = n(0, 3), recent = n(0, 6);
  constexpr std::int32_t all = 1 << 20;  // a row of every token
  bool const heads_or_tails = in.one_in(2);
  switch (in.below(14)) {
    case 0: return erased<Entry, needs::nothing>(p::full(), 0);
    case 1: return erased<Entry, needs::nothing>(p::random({in.bits(), sinks, recent}), 0);
    case 2: return erased<Entry, needs::nothing>(p::streaming_llm({sinks}), 0);
    case 3: return erased<Entry, needs::nothing>(p::keydiff({sinks, recent}), 0);
    case 4: {
      auto const how = heads_or_tails ? partition_score::rank : partition_score::share;
      return erased<Entry, needs::nothing>(p::lagkv({n(1, 9), sinks, how}), 0);
    }
    case 5: return erased<Entry, needs::nothing>(p::knorm({sinks, recent}), 0);
    case 6: {
      std::int32_t const window = heads_or_tails ? n(1, 9) : 0;
      return erased<Entry, needs::nothing>(p::manifoldkv({sinks, recent, window}), 0);
    }
    case 9: return erased<Entry, needs::nothing>(p::distinct_keys({sinks, n(0, 300), n(0, 1000), some_keys(in)}), 0);
    case 12:
      return erased<Entry, needs::moments>(p::capkv({heads_or_tails ? 0.0f : 5.0f, n(1, 600), sinks, recent}), 0);
    case 10: {
      using kvevict::score::query_spread, kvevict::score::value_factor;
      auto const of = heads_or_tails ? query_spread::mean : query_spread::mean_and_covariance;
      auto const values = in.one_in(2) ? value_factor::none : value_factor::norm;
      return erased<Entry, needs::moments>(p::expected_attention({n(1, 600), of, sinks, recent, 0.01f, values}), 0);
    }
    case 7: {
      auto const ridge = heads_or_tails ? 0.01f : 1.0f;
      return erased<Entry, needs::nothing>(p::leverage({sinks, recent, ridge, some_keys(in)}), 0);
    }
    case 8: {
      auto const norm = heads_or_tails ? column_norm::none : column_norm::rows_that_see;
      return erased<Entry, needs::prompt>(p::h2o({recent, sinks, norm}), all);
    }
    default: {
      auto const sees = heads_or_tails ? gate_mask::causal : gate_mask::bidirectional;
      float const threshold = static_cast<float>(n(0, 9)) * 0.1f;
      return erased<Entry, needs::features>(p::attention_gate(g.weights, {threshold, sinks, recent, n(0, 2), sees}),
                                            all);
    }
  }
}

/// Of whole pages, of one set for all heads, and of both.
template <class Entry> policy<Entry> choose_of_pages(input& in, options n) {
  namespace p = kvevict::presets;
  kvevict::select::pages const pages{in.one_in(2) ? kvevict::page_reduce::mean : kvevict::page_reduce::max};
  kvevict::heads::together const together{};
  std::int32_t const sinks = n(0, 3), recent = n(0, 6), window = n(1, 9);
  switch (in.below(7)) {
    case 0: return erased<Entry, needs::prompt>(p::snapkv({window, odd(n), {}, sinks}).with(together), window);
    case 1:
      return erased<Entry, needs::prompt>(p::ada_snapkv({window, odd(n), n(0, 1000), {}, sinks}).with(pages), window);
    case 2: return erased<Entry, needs::prompt>(p::h2o({recent, sinks}).with(pages), 1 << 20);
    case 3: return erased<Entry, needs::nothing>(p::keydiff({sinks, recent}).with(pages).with(together), 0);
    case 4: return erased<Entry, needs::nothing>(p::knorm({sinks, recent}).with(pages), 0);
    case 5: return erased<Entry, needs::nothing>(p::random({in.bits(), sinks, recent}).with(together), 0);
    default: return erased<Entry, needs::nothing>(p::streaming_llm({sinks}).with(pages), 0);
  }
}

}  // namespace fuzz
