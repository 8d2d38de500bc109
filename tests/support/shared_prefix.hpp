// SPDX-License-Identifier: Apache-2.0
// Two sequences with one beginning: in pages of their own, and in pages that they share and nobody may write.
#pragma once

#include "support/batch_cache.hpp"
#include "support/catch.hpp"

namespace support {

struct shared_prefix {
  static constexpr std::int32_t fixed = 16;  // one page

  batch in = random_batch(83, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
  std::vector<std::int32_t> read_only{fixed, fixed};
  layouts::cache<std::int32_t> apart, together;

  explicit shared_prefix(std::int32_t state_floats)
      : apart(layouts::layout::head_pages, shape(state_floats)),
        together(layouts::layout::head_pages, shape(state_floats)) {
    for (std::size_t h = 0; h < in.H; ++h)
      for (std::size_t t = 0; t < fixed; ++t)
        for (std::size_t d = 0; d < in.D; ++d) in.layers[1].keys.at(h, t, d) = in.layers[0].keys.at(h, t, d);
    auto const columns = static_cast<std::size_t>(together.view.pages.columns);
    for (std::size_t h = 0; h < in.H; ++h) together.entries()[(in.H + h) * columns] = together.entries()[h * columns];
    together.view.read_only = read_only.data();
    for (auto* cache : {&apart, &together}) {
      cache->fill(role::k,
                  [&](int b, int h, int t, int d) { return in.layers[size(b)].keys.at(size(h), size(t), size(d)); });
      cache->fill(role::v, [](int, int h, int t, int d) { return h + t + d; });
      cache->fill(role::state, before);
    }
  }
  layouts::cache_shape shape(std::int32_t state_floats) const {
    auto out = cache_shape_of(in);
    out.state_floats = state_floats;
    return out;
  }

  /// After the same observe() on both: the prefix is as it was, all other tokens have the same state.
  void compare() const {
    for (int b = 0; b < 2; ++b)
      for (int h = 0; h < 2; ++h) {
        auto const got = together.read(role::state, b, h);
        auto want = apart.read(role::state, b, h);
        std::size_t const width = got.size() / in.N[size(b)];
        CHECK(got != want);
        for (std::size_t i = 0; i < fixed * width; ++i)
          want[i] = static_cast<float>(before(b, h, static_cast<int>(i / width), static_cast<int>(i % width)));
        CHECK(got == want);
      }
  }

 private:
  using role = kvevict::role;
  static std::size_t size(int i) { return static_cast<std::size_t>(i); }
  static int before(int, int h, int t, int c) { return h + t + c; }
};

}  // namespace support
