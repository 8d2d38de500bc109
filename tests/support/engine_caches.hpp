// SPDX-License-Identifier: Apache-2.0
// Caches of engines, each with the address formula that its engine computes, written from the engine's code and without
// the library's builders. Every element can carry a tag of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <kvevict/cache/layer_view.hpp>

#include "support/random.hpp"

namespace engine_caches {

/// An element of a component: in which page (by the table's id), slot, head and layer, and which of its row.
struct place {
  std::int64_t page, slot, head, layer, e;
};
/// Byte offset in the component's pool.
using formula = std::function<std::int64_t(place const&)>;

/// A component as its engine has it: elements of `bytes`, `width` of them a row.
struct stored {
  std::int32_t bytes, width;
  std::size_t pool;
  formula at;
  bool alias = false;  // the front of the rows of component 0
};

/// What all these caches have: sequences of these lengths in pages of a pool, whose order is random; −1 stands in the
/// table behind the pages in use.
struct batch {
  std::vector<std::int32_t> lengths;
  std::int32_t heads, layers, page_size, ids_a_page = 1;
  bool by_head = false;                                              // a table for each head
  bool identity = false;                                             // no table
  std::int32_t columns = 0;                                          // of the dense table
  std::int64_t pages = 0;                                            // ids in the pool
  std::vector<std::int32_t> table, indptr{0}, indices, all_lengths;  // dense; CSR; (layers·B·H or ·1)

  batch(std::vector<std::int32_t> n, std::int32_t H, std::int32_t L, std::int32_t P, std::uint64_t seed,
        std::int32_t step = 1, bool per_head = false, bool contiguous = false)
      : lengths(std::move(n)),
        heads(H),
        layers(L),
        page_size(P),
        ids_a_page(step),
        by_head(per_head),
        identity(contiguous) {
    std::int32_t const tables = by_head && !identity ? heads : 1;
    std::int64_t used = 0;
    for (std::int32_t const t : lengths) {
      columns = std::max(columns, (t + P - 1) / P);
      used += std::int64_t{(t + P - 1) / P} * tables;
    }
    pages = identity ? static_cast<std::int64_t>(lengths.size()) : (used + 3) * step;
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < used + 3; ++i) ids.push_back(i * step);
    reference::generator random(seed);
    for (std::size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random.below(i)]);
    for (std::int32_t const t : lengths)
      for (std::int32_t h = 0; h < tables; ++h) {
        for (std::int32_t i = 0; i < columns; ++i) {
          bool const in_use = i < (t + P - 1) / P;
          table.push_back(in_use ? ids.back() : -1);
          if (!in_use) continue;
          indices.push_back(ids.back());
          ids.pop_back();
        }
        indptr.push_back(static_cast<std::int32_t>(indices.size()));
      }
    for (std::int32_t l = 0; l < layers; ++l)
      for (std::int32_t const t : lengths)
        all_lengths.insert(all_lengths.end(), static_cast<std::size_t>(by_head ? heads : 1), t);
  }
  std::int32_t sequences() const { return static_cast<std::int32_t>(lengths.size()); }
  /// Bytes of a pool of rows of so many bytes.
  std::size_t rows_of(std::int64_t bytes) const {
    return static_cast<std::size_t>(pages * page_size * (by_head ? 1 : heads) * layers * bytes);
  }
  std::int64_t page_of(std::int32_t s, std::int32_t h, std::int32_t t) const {
    if (identity) return s;
    std::int32_t const row = by_head ? s * heads + h : s;
    return table[static_cast<std::size_t>(row * columns + t / page_size)];
  }
};

using any_view = std::variant<kvevict::layer_view<std::int32_t>, kvevict::layer_view<std::byte*>>;

/// A cache with memory of its own. `build` gets its pools, which have `bytes` each, and returns the view; `of`
/// describes the view's components in their order.
struct cache {
  std::string name;
  batch has;
  std::vector<std::vector<std::byte>> pools;
  std::vector<std::byte*> addresses;  // of pages, for tables of them
  std::vector<stored> of;
  any_view view;
  bool together = false;  // one row for all heads

  std::byte* at(std::size_t c, std::int32_t b, std::int32_t h, std::int32_t t, std::int32_t e) {
    stored const& s = of[c];
    std::int32_t const l = b / has.sequences(), q = b % has.sequences();
    std::int64_t const offset = s.at({has.page_of(q, h, t), t % has.page_size, h, l, e});
    return pools[s.pool].data() + offset;
  }
  /// A tag for each element that is there; the bytes of an element of `bytes`.
  static std::uint64_t tag(std::size_t c, std::int32_t b, std::int32_t h, std::int32_t t, std::int32_t e) {
    std::uint64_t x = (((c * 64 + static_cast<std::uint64_t>(b)) * 64 + static_cast<std::uint64_t>(h)) * 4096 +
                       static_cast<std::uint64_t>(t)) *
                          1024 +
                      static_cast<std::uint64_t>(e) + 1;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 31;
  }
  void put(std::size_t c, std::int32_t b, std::int32_t h, std::int32_t t) {
    std::int32_t const head = together ? 0 : h;
    for (std::int32_t e = 0; e < of[c].width && !of[c].alias; ++e) {
      std::uint64_t const x = tag(c, b, head, t, e);
      std::memcpy(at(c, b, h, t, e), &x, static_cast<std::size_t>(of[c].bytes));
    }
  }
  /// Whether slot t holds what was put for token `token`.
  bool holds(std::size_t c, std::int32_t b, std::int32_t h, std::int32_t t, std::int32_t token) {
    std::int32_t const head = together ? 0 : h;
    for (std::int32_t e = 0; e < of[c].width; ++e) {
      std::uint64_t const x = tag(of[c].alias ? 0 : c, b, head, token, e);
      if (std::memcmp(at(c, b, h, t, e), &x, static_cast<std::size_t>(of[c].bytes)) != 0) return false;
    }
    return true;
  }
  template <class F> void for_each_slot(F f) {
    for (std::int32_t b = 0; b < has.layers * has.sequences(); ++b)
      for (std::int32_t h = 0; h < has.heads; ++h)
        for (std::int32_t t = 0; t < has.lengths[static_cast<std::size_t>(b % has.sequences())]; ++t) f(b, h, t);
  }
};

/// How to make one: its batch, and `build`, which takes memory, describes the components and sets the view.
struct recipe {
  char const* name;
  std::int32_t heads = 3, layers = 1, page_size = 4, ids_a_page = 1;
  bool by_head = false, identity = false, together = false;
  std::function<void(cache&)> build;

  std::unique_ptr<cache> make(std::vector<std::int32_t> lengths, std::uint64_t seed) const {
    std::int32_t room = page_size;
    if (identity)
      for (std::int32_t const n : lengths) room = std::max(room, n);
    auto out = std::make_unique<cache>(
        cache{name,
              batch(std::move(lengths), heads, layers, room, seed, ids_a_page, by_head, identity),
              {},
              {},
              {},
              {},
              together});
    build(*out);
    return out;
  }
};

}  // namespace engine_caches
