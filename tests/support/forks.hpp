// SPDX-License-Identifier: Apache-2.0
// Forks in one view: sequences whose first pages are those of another one, in every kind of table.
#pragma once

#include <kvevict/presets/keydiff.hpp>
#include <kvevict/presets/snapkv.hpp>
#include <kvevict/presets/streaming_llm.hpp>

#include "support/batch_cache.hpp"
#include "support/keep_sets.hpp"

namespace support {

/// Sequence 1 has the first 8 tokens of sequence 0, sequence 2 the first 12; nothing says so but the table.
struct forks {
  static constexpr std::int32_t common[] = {0, 8, 12};
  static constexpr layouts::layout tables[] = {layouts::layout::hnd, layouts::layout::csr, layouts::layout::token_pool,
                                               layouts::layout::pointers, layouts::layout::head_pages};
  batch in = random_batch(84, {.Hq = 4, .H = 2, .D = 8, .N = {40, 33, 21}});
  attention const rows = last_queries(in, 8);

  /// f(cache)
  template <class F> void with(layouts::layout l, F f) const {
    auto shape = cache_shape_of(in);
    shape.page_size = 4, shape.spare_tokens = 24, shape.state_floats = 1;
    layouts::with_layout(l, shape, [&](auto& cache) {
      for (std::int32_t b = 1; b < 3; ++b)
        for (std::int32_t h = 0; h < (cache.per_head() ? 2 : 1); ++h)
          for (std::int32_t i = 0; i < common[b] / cache.view.pages.page_size; ++i)
            entry(cache, b, h, i) = entry(cache, 0, h, i);
      fill(cache, in);
      cache.fill(kvevict::role::state, [](int, int h, int t, int) { return h + t; });
      f(cache);
    });
  }
  template <class Cache> static auto& entry(Cache& cache, std::int32_t b, std::int32_t h, std::int32_t i) {
    auto& all = cache.entries();
    return all[static_cast<std::size_t>(cache.view.pages.entries_of(b, h) - all.data() + i)];
  }

  /// Sequence b as a view of its own, and its rows.
  template <class Entry> static kvevict::layer_view<Entry> alone(kvevict::layer_view<Entry> v, std::int32_t b) {
    auto& t = v.pages;
    if (t.row_begin != nullptr)
      t.row_begin += b;
    else
      t.entries += b * t.seq_stride;
    v.lengths.data += b * v.lengths.seq_stride;
    t.sequences = 1;
    return v;
  }
  static kvevict::query_rows alone(kvevict::query_rows q, std::int32_t b) { return q.row_begin += b, q; }

  /// f(policy) for scores that read keys, queries or nothing.
  template <class F> static void each_policy(F f) {
    namespace p = kvevict::presets;
    f(p::snapkv({.window = 4, .pool = 3}));
    f(p::keydiff({.sinks = 1, .recent = 2}));
    f(p::streaming_llm({.sinks = 2}));
  }
  static constexpr kvevict::budget ask{.tokens_per_head = 10};
};

}  // namespace support
