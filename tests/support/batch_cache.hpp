// SPDX-License-Identifier: Apache-2.0
// A batch in a cache of any layout.
#pragma once

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/evidence/budget.hpp>

#include "support/batch.hpp"
#include "support/layouts.hpp"

namespace support {

/// Fills K and V of a cache with the batch's first tokens; positions are there already.
template <class Cache> void fill(Cache& cache, batch const& in) {
  auto const from = [&](reference::cube reference::layer::*what) {
    return [&in, what](int b, int h, int t, int d) {
      return (in.layers[static_cast<std::size_t>(b)].*what)
          .at(static_cast<std::size_t>(h), static_cast<std::size_t>(t), static_cast<std::size_t>(d));
    };
  };
  cache.fill(from(&reference::layer::keys), from(&reference::layer::values));
}

inline layouts::cache_shape cache_shape_of(batch const& in) {
  layouts::cache_shape out;
  out.lengths.clear();
  for (std::size_t const n : in.N) out.lengths.push_back(int32(n));
  out.heads = int32(in.H), out.head_dim = int32(in.D);
  out.page_size = 16;
  return out;
}

/// f(cache) with the batch in a cache of that layout.
template <class F> void with_cache(layouts::layout l, layouts::cache_shape const& shape, batch const& in, F&& f) {
  layouts::with_layout(l, shape, [&](auto& cache) {
    fill(cache, in);
    f(cache);
  });
}
template <class F> void with_cache(batch const& in, F&& f) {
  with_cache(layouts::layout::head_pages, cache_shape_of(in), in, f);
}

/// The budget, told that all layers are as long as the view's.
template <class View> kvevict::budget in_equal_layers(View const& v, kvevict::budget b) {
  b.lengths = {v.lengths.data, v.lengths.seq_stride, 0, v.lengths.head_stride};
  return b;
}

inline index_rows rows_of_sequence(kvevict::keep_set const& keep, std::size_t b) {
  index_rows out;
  for (std::int32_t h = 0; h < keep.heads; ++h) {
    auto const row = keep(int32(b), h);
    out.emplace_back(row.begin(), row.end());
  }
  return out;
}

}  // namespace support
