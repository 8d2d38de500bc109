// SPDX-License-Identifier: Apache-2.0
// Caches as engines lay them out, with memory of their own, so that one test runs over all of them.
//
//   layouts::for_each_layout({.lengths = {37, 5}, .heads = 2}, [&](auto& cache) {
//     CAPTURE(cache.name());
//     cache.fill([](int b, int h, int t, int d) { return …; }, [](int b, int h, int t, int d) { return …; });
//     auto done = compact(ctx, cache.view, keep);
//     auto k = cache.read(role::k, b, h);  // (N·D) floats
//   });
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include <kvevict/engines/pages.hpp>

#include "support/random.hpp"

namespace layouts {

using kvevict::component;
using kvevict::dtype;
using kvevict::role;
namespace pages = kvevict::pages;

enum class layout {
  nhd,           // vLLM FlashAttention (2,nb,P,H,D)
  hnd,           // vLLM / FlashInfer (nb,2,H,P,D)
  x_packed,      // vLLM legacy K [nb,H,D/x,P,x], V [nb,H,D,P]
  csr,           // FlashInfer: HND pages, indptr and indices
  token_pool,    // SGLang: K and V (tokens,H,D), page size 1
  bnsh,          // Hugging Face [B,H,S,D], no table
  transposed_v,  // llama.cpp without flash attention: K (cells,H·D), V (H·D,cells), page size 1
  pointers,      // TurboMind: addresses of pages that hold everything
  head_blocks,   // KV-Compress: K [nb,D/x,P,x], V [nb,D,P], a table per head
  head_pages,    // (nb,P,D), a table per head
  own_pages,     // TensorRT-LLM: K and V (nb,H,P,D) in pools with ids of their own, a table [B,2,columns]
};
// whose pages are those of one table, which every verb takes
inline constexpr layout all[] = {layout::nhd,         layout::hnd,       layout::x_packed,     layout::csr,
                                 layout::token_pool,  layout::bnsh,      layout::transposed_v, layout::pointers,
                                 layout::head_blocks, layout::head_pages};
inline char const* name_of(layout l) {
  constexpr char const* names[] = {"nhd",          "hnd",      "x_packed",    "csr",        "token_pool", "bnsh",
                                   "transposed_v", "pointers", "head_blocks", "head_pages", "own_pages"};
  return names[static_cast<int>(l)];
}
inline bool has_table_per_head(layout l) { return l == layout::head_blocks || l == layout::head_pages; }

struct cache_shape {
  std::vector<std::int32_t> lengths{5};      // (B)
  std::vector<std::int32_t> head_lengths{};  // (B·H), layouts with a table per head and bnsh only; empty: lengths
  std::int32_t heads = 2, head_dim = 16;     // head_dim: a multiple of 8
  std::int32_t page_size = 4;                // ignored by token_pool, bnsh and transposed_v
  dtype type = dtype::f32;
  std::int32_t spare_tokens = 0;  // capacity beyond the lengths, for decoding
  std::int32_t state_floats = 0;  // width of the role::state component of every slot and head; 0: none
  std::int32_t positions = 1;     // 0: no role::position component
  std::uint64_t seed = 1;         // of the page order and of the garbage in unused bytes
};

/// Owns a pool and its tables; `view` reads them. Movable. Positions start as 0 … N−1, every other byte as garbage.
template <class Entry> class cache {
 public:
  static constexpr bool of_pointers = std::is_same_v<Entry, std::byte*>;

  cache(layout l, cache_shape s) : kind_(l), shape_(std::move(s)), random_(shape_.seed) {
    per_head_ = has_table_per_head(l) || (l == layout::bnsh && !shape_.head_lengths.empty());
    set_lengths();
    set_table();
    set_components();
    for (auto const& c : view)
      if (c.what == role::position)
        for_each_slot([&](int b, int h, int t) { element<std::int32_t>(view, c, b, h, t) = t; });
  }
  cache(cache&&) = default;

  kvevict::layer_view<Entry> view;

  char const* name() const { return layouts::name_of(kind_); }
  layout kind() const { return kind_; }
  cache_shape const& shape() const { return shape_; }
  /// May its heads keep different counts?
  bool per_head() const { return per_head_; }
  std::vector<std::int32_t>& lengths() { return lengths_; }  // (B·H) when per_head, else (B)
  std::vector<Entry>& entries() { return entries_; }
  std::vector<std::int32_t>& row_begin() { return row_begin_; }  // CSR only
  std::vector<std::byte>& buffer(std::size_t i) { return buffers_[i]; }

  template <class F> void for_each_slot(F f) const {
    for (int b = 0; b < view.sequences(); ++b)
      for (int h = 0; h < view.heads(); ++h)
        for (int t = 0; t < view.length(b, h); ++t) f(b, h, t);
  }

  std::byte* address(component const& c, int b, int h, int t, int d) const {
    std::int64_t const width = kvevict::size_of(c.type), per_run = c.rows.run_bytes / width;
    return view.row(c, b, h, t) + d / per_run * c.rows.run_stride + d % per_run * width;
  }
  float get(component const& c, int b, int h, int t, int d) const {
    std::byte const* const p = address(c, b, h, t, d);
    if (c.type == dtype::f16) return kvevict::to_float(load<kvevict::f16>(p));
    if (c.type == dtype::bf16) return kvevict::to_float(load<kvevict::bf16>(p));
    return c.type == dtype::i32 ? static_cast<float>(load<std::int32_t>(p)) : load<float>(p);
  }
  void set(component const& c, int b, int h, int t, int d, float x) {
    std::byte* const p = address(c, b, h, t, d);
    if (c.type == dtype::f16)
      store(p, kvevict::from_float<kvevict::f16>(x));
    else if (c.type == dtype::bf16)
      store(p, kvevict::from_float<kvevict::bf16>(x));
    else if (c.type == dtype::i32)
      store(p, static_cast<std::int32_t>(x));
    else
      store(p, x);
  }

  /// f(b, h, t, d) → float for every element of the first component of that role.
  template <class F> void fill(role what, F f) { fill(*view.find(what), f); }
  template <class F> void fill(component const& c, F f) {
    for_each_slot([&](int b, int h, int t) {
      for (int d = 0; d < c.width(); ++d) set(c, b, h, t, d, static_cast<float>(f(b, h, t, d)));
    });
  }
  template <class K, class V> void fill(K k, V v) { fill(role::k, k), fill(role::v, v); }

  /// The first `tokens` rows of (b, h), dense (tokens, width); tokens < 0: all that the view has.
  std::vector<float> read(component const& c, int b, int h, int tokens = -1) const {
    std::vector<float> out;
    for (int t = 0; t < (tokens < 0 ? view.length(b, h) : tokens); ++t)
      for (int d = 0; d < c.width(); ++d) out.push_back(get(c, b, h, t, d));
    return out;
  }
  std::vector<float> read(role what, int b, int h, int tokens = -1) const {
    return read(*view.find(what), b, h, tokens);
  }

  /// Every byte of the pool, to compare and to go back to.
  std::vector<std::vector<std::byte>> snapshot() const { return buffers_; }
  void restore(std::vector<std::vector<std::byte>> const& bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) std::copy(bytes[i].begin(), bytes[i].end(), buffers_[i].begin());
  }

 private:
  template <class T> static T load(std::byte const* p) {
    T x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  template <class T> static void store(std::byte* p, T x) { std::memcpy(p, &x, sizeof x); }

  std::byte* allocate(std::int64_t bytes) {
    auto& b = buffers_.emplace_back(static_cast<std::size_t>(bytes));
    for (std::byte& x : b) x = static_cast<std::byte>(random_.bits());
    return b.data();
  }

  void set_lengths() {
    std::int32_t const sequences = static_cast<std::int32_t>(shape_.lengths.size());
    if (!per_head_)
      lengths_ = shape_.lengths;
    else if (!shape_.head_lengths.empty())
      lengths_ = shape_.head_lengths;
    else
      for (std::int32_t const n : shape_.lengths)
        lengths_.insert(lengths_.end(), static_cast<std::size_t>(shape_.heads), n);
    view.pages.sequences = sequences;
    view.pages.heads = shape_.heads;
    view.lengths = {lengths_.data(), per_head_ ? shape_.heads : 1, per_head_ ? 1 : 0};
  }

  void set_table() {
    std::int32_t longest = 0;
    for (std::int32_t const n : lengths_) longest = std::max(longest, n + shape_.spare_tokens);
    bool const single = kind_ == layout::token_pool || kind_ == layout::transposed_v;
    std::int32_t const P = view.pages.page_size = single                  ? 1
                                                  : kind_ == layout::bnsh ? std::max(longest, 1)
                                                                          : shape_.page_size;
    if (kind_ == layout::bnsh) {
      pages_ = view.pages.sequences;
      view.pages.columns = 1;
      view.pages.head_stride = per_head_ ? 1 : 0;
      return;
    }
    auto const pages_of = [&](std::int32_t n) { return (n + shape_.spare_tokens + P - 1) / P; };
    for (std::int32_t const n : lengths_) pages_ += pages_of(n);
    pages_ += 3;
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < pages_; ++i) ids.push_back(i);
    for (std::size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random_.below(i)]);
    std::vector<std::int32_t> values(ids.rbegin(), ids.rend());
    bool const own = kind_ == layout::own_pages;
    std::int32_t const columns = (longest + P - 1) / P;
    bool const csr = kind_ == layout::csr || kind_ == layout::pointers;
    if (csr) row_begin_.push_back(0);
    for (std::int32_t const n : lengths_) {
      for (std::int32_t i = 0; i < (csr ? pages_of(n) : columns); ++i) {
        bool const used = i < pages_of(n);
        ids_.push_back(used ? ids.back() : -1);
        if (used) ids.pop_back();
      }
      for (std::int32_t i = 0; own && i < columns; ++i) {
        ids_.push_back(i < pages_of(n) ? values.back() : -1);
        if (i < pages_of(n)) values.pop_back();
      }
      if (csr) row_begin_.push_back(static_cast<std::int32_t>(ids_.size()));
    }
    view.pages.columns = csr ? 0 : columns;
    view.pages.head_stride = per_head_ ? std::max(columns, 1) : 0;
    view.pages.seq_stride = std::int64_t{std::max(columns, 1)} * (per_head_ ? shape_.heads : own ? 2 : 1);
    view.pages.row_begin = csr ? row_begin_.data() : nullptr;
  }

  void add(component c) { view = view.with(c); }
  void add(pages::kv const& both) { add(both.k), add(both.v); }

  void set_components();
  void set_pointer_components();

  layout kind_;
  cache_shape shape_;
  reference::generator random_;
  bool per_head_ = false;
  std::int32_t pages_ = 0;
  std::vector<std::int32_t> lengths_, row_begin_, ids_;
  std::vector<Entry> entries_;
  std::vector<std::vector<std::byte>> buffers_;
};

template <class Entry> void cache<Entry>::set_components() {
  if constexpr (of_pointers) return set_pointer_components();
  std::int32_t const P = view.pages.page_size, H = has_table_per_head(kind_) ? 1 : shape_.heads;
  std::int64_t const half = std::int64_t{pages_} * P * H * shape_.head_dim * kvevict::size_of(shape_.type);
  pages::sizes const s{pages_, P, H, shape_.head_dim, shape_.type};
  std::byte* const base = allocate(2 * half);
  auto const behind_k = [&](component v) { return v.rows.offset = half, v; };
  switch (kind_) {
    case layout::nhd: add(pages::k_and_v(base, s, "2BNHD")); break;
    case layout::csr:
    case layout::hnd: add(pages::k_and_v(base, s, "B2HND")); break;
    case layout::head_blocks:
    case layout::x_packed:
      add({pages::x_packed(role::k, base, s), behind_k(pages::transposed(role::v, base, s))});
      break;
    case layout::token_pool: add(pages::k_and_v(base, s, "2BHD")); break;
    case layout::transposed_v:
      add({pages::cells(role::k, base, s), behind_k(pages::transposed_cells(role::v, base, s))});
      break;
    default: add(pages::k_and_v(base, s, "2BHND")); break;
  }
  if (kind_ == layout::own_pages) view.components[1].table_offset = view.pages.columns;
  auto const per_slot = [&](role what, dtype type, std::int32_t width) {
    if (width != 0)
      add(pages::hnd(what, allocate(std::int64_t{pages_} * H * P * width * 4), {pages_, P, H, width, type}));
  };
  per_slot(role::position, dtype::i32, shape_.positions);
  per_slot(role::state, dtype::f32, shape_.state_floats);
  if constexpr (!of_pointers) entries_.assign(ids_.begin(), ids_.end());
  view.pages.entries = kind_ == layout::bnsh ? nullptr : entries_.data();
}

template <class Entry> void cache<Entry>::set_pointer_components() {
  std::int32_t const P = view.pages.page_size, H = shape_.heads;
  std::int64_t const slots = std::int64_t{H} * P,
                     kv_bytes = 2 * slots * shape_.head_dim * kvevict::size_of(shape_.type);
  std::int64_t const page_bytes = kv_bytes + (shape_.positions + shape_.state_floats) * slots * 4;
  std::byte* const base = allocate(pages_ * page_bytes);
  add(pages::k_and_v(nullptr, {pages_, P, H, shape_.head_dim, shape_.type}, "H2ND"));
  auto const per_slot = [&](role what, dtype type, std::int32_t width, std::int64_t offset) {
    if (width == 0) return;
    component c = pages::tensor(what, nullptr, {pages_, P, H, width, type}, "HND");
    c.rows.offset = offset;
    add(c);
  };
  per_slot(role::position, dtype::i32, shape_.positions, kv_bytes);
  per_slot(role::state, dtype::f32, shape_.state_floats, kv_bytes + shape_.positions * slots * 4);
  if constexpr (of_pointers)
    for (std::int32_t const id : ids_) entries_.push_back(base + id * page_bytes);
  view.pages.entries = entries_.data();
}

/// f(cache) with a fresh cache of that layout.
template <class F> void with_layout(layout l, cache_shape const& shape, F&& f) {
  if (l == layout::pointers) {
    cache<std::byte*> c(l, shape);
    f(c);
  } else {
    cache<std::int32_t> c(l, shape);
    f(c);
  }
}

template <class F> void for_each_layout(cache_shape const& shape, F&& f) {
  for (layout const l : all) with_layout(l, shape, f);
  with_layout(layout::own_pages, shape, f);
}

}  // namespace layouts
