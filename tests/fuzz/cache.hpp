// SPDX-License-Identifier: Apache-2.0
// A random cache with memory of its own: every form of table, nested strides in any order, guard bytes around it all.
#pragma once

#include <cstring>
#include <memory>
#include <type_traits>

#include <kvevict/cache/layer_view.hpp>

#include "fuzz/input.hpp"

namespace fuzz {

using kvevict::component;
using kvevict::dtype;
using kvevict::role;

/// Bytes between guards; all of it belongs to the image that laws compare.
using image = std::vector<std::vector<std::byte>>;
inline constexpr std::size_t guard = 64;

struct shape {
  std::int32_t sequences, heads, layers, head_dim, state_floats;
};

template <class Entry> class cache {
 public:
  static constexpr bool of_pointers = std::is_same_v<Entry, std::byte*>;
  using view_type = kvevict::layer_view<Entry>;

  cache(input& in, shape const& s) : in_(in), shape_(s) {
    identity_ = !of_pointers && in.one_in(6);
    per_head_ = in.one_in(2);
    csr_ = !identity_ && in.one_in(3);
    interleaved_ = !identity_ && per_head_ && in.one_in(4);
    page_size_ = identity_ ? 48 : in.between(1, 9);
    choose_lengths();
    choose_layers();
    choose_components();
    choose_table();
    choose_order();
    fill();
  }
  cache(cache const&) = delete;
  cache& operator=(cache const&) = delete;

  view_type view;
  image memory;  // every buffer
  std::vector<Entry> entries;
  std::vector<std::int32_t> lengths, row_begin, read_only;
  std::vector<std::int32_t> next_position;  // (B)

  /// Where a run of a row lies, worked out without the library.
  static std::byte* address(view_type const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t,
                            std::int32_t run) {
    auto const& p = v.pages;
    std::int64_t const per_layer = p.sequences / p.layers, l = b / per_layer, s = b % per_layer;
    std::int64_t offset = c.rows.offset + l * c.rows.layer_stride + h * c.rows.head_stride +
                          t % p.page_size * c.rows.slot_stride + run * c.rows.run_stride;
    if (p.entries == nullptr) return c.rows.base + (s * c.rows.page_stride + offset);
    std::int64_t const r = l * p.layer_stride + (p.head_stride != 0 ? s * p.heads + h : s);
    Entry const* const row =
        p.entries +
        (p.row_begin != nullptr ? p.row_begin[r] : l * p.layer_stride + s * p.seq_stride + h * p.head_stride);
    if constexpr (of_pointers)
      return row[t / p.page_size] + offset;
    else
      return c.rows.base +
             ((static_cast<std::int64_t>(row[t / p.page_size]) & p.index_mask) * c.rows.page_stride + offset);
  }
  static void read(view_type const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t,
                   std::vector<std::byte>& out) {
    for (std::int32_t run = 0; run < c.rows.n_runs; ++run) {
      std::byte const* const p = address(v, c, b, h, t, run);
      out.insert(out.end(), p, p + c.rows.run_bytes);
    }
  }
  /// Element d of a row, as a float.
  static float number(view_type const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t,
                      std::int32_t d) {
    std::int32_t const e = size_of(c.type), per_run = c.rows.run_bytes / e;
    std::byte const* const p = address(v, c, b, h, t, d / per_run) + d % per_run * e;
    return with_type(c.type, [&](auto x) {
      std::memcpy(&x, p, sizeof x);
      return kvevict::to_float(x);
    });
  }

  /// New tokens of one sequence can be written: its pages are its own, and its table has room.
  bool has_room() const {
    for (std::int32_t b = 0; b < view.sequences(); ++b)
      for (std::int32_t h = 0; h < view.heads(); ++h) {
        std::int32_t const n = view.length(b, h);
        if (n >= view.pages.capacity(b, h)) return false;
        if (view.read_only_tokens(b) >= n && n % page_size_ != 0) return false;
        if (layers_share_table() || free_.empty()) return identity_;
      }
    return identity_ || free_.size() >= static_cast<std::size_t>(view.pages.rows());
  }
  /// One token more in every row, behind the last one or in the slot that is free.
  void append(std::vector<std::int32_t> const& free_slot) {
    for (std::int32_t b = 0; b < view.sequences(); ++b) {
      for (std::int32_t h = 0; h < view.heads(); ++h) {
        std::int32_t slot = free_slot[static_cast<std::size_t>(b * view.heads() + h)];
        if (slot < 0) {
          slot = view.length(b, h) - (!per_head_ && h > 0 ? 1 : 0);
          if (per_head_ || h == 0) grow(b, h, slot);
        }
        for (component const& c : view)
          if (h == 0 || !view.shared_by_heads(c)) write_token(c, b, h, slot, next_position[std::size_t(b)]);
      }
      ++next_position[static_cast<std::size_t>(b)];
    }
  }
  void set_length(std::int32_t b, std::int32_t h, std::int32_t n) {
    lengths[static_cast<std::size_t>(b * view.lengths.seq_stride + h * view.lengths.head_stride)] = n;
  }
  void give(Entry page) {  // freed, and overwritten: nobody may look at it again
    if (layers_share_table() || !read_only.empty()) return;
    free_.push_back(page);
  }
  bool layers_share_table() const { return shape_.layers > 1 && view.pages.layer_stride == 0; }

 private:
  std::size_t row_count() const { return static_cast<std::size_t>(shape_.sequences * shape_.heads); }

  void choose_lengths() {
    bool const alike = in_.one_in(4);
    std::int32_t const common = in_.between(1, 40);
    for (std::int32_t b = 0; b < shape_.sequences; ++b)
      for (std::int32_t h = 0; h < shape_.heads; ++h)
        tokens_.push_back(alike                 ? common
                          : !per_head_ && h > 0 ? tokens_.back()
                          : in_.one_in(8)       ? 0
                                                : in_.between(1, 40));
    bool const common_heads = !per_head_ && in_.one_in(2);
    std::int64_t const head_stride = common_heads ? 0 : in_.between(1, 2),
                       seq_stride = common_heads ? in_.between(1, 2) : shape_.heads * head_stride + in_.below(2);
    lengths.assign(static_cast<std::size_t>(shape_.sequences * seq_stride + shape_.heads * head_stride), -7);
    view.lengths = {lengths.data(), seq_stride, head_stride};
    view.pages.sequences = shape_.sequences, view.pages.heads = shape_.heads, view.pages.layers = shape_.layers;
    view.pages.page_size = page_size_;
    for (std::int32_t b = 0; b < shape_.sequences; ++b)
      for (std::int32_t h = 0; h < shape_.heads; ++h) set_length(b, h, tokens_[std::size_t(b * shape_.heads + h)]);
  }

  /// Whether the layers of a stack go by one table, and whether ids mean other bytes in each.
  void choose_layers() {
    common_table_ = shape_.layers > 1 && (identity_ || in_.one_in(2));
    layers_apart_ = shape_.layers > 1 && (common_table_ || in_.one_in(2));
  }
  std::int64_t pages_of(std::int32_t n) const { return (n + 6 + page_size_ - 1) / page_size_; }

  /// Pages in memory; of an interleaved one H pages of a head each.
  std::int64_t blocks() const { return interleaved_ ? (pool_ + shape_.heads - 1) / shape_.heads : pool_; }
  void add(role what, dtype type, std::int32_t runs, std::int32_t elements, bool common, bool twin);
  void choose_components();
  void make_pages();
  void choose_table();
  void choose_order();
  void fill();

  std::byte* allocate(std::int64_t bytes) {
    memory.emplace_back(static_cast<std::size_t>(bytes) + 2 * guard);
    for (std::byte& x : memory.back()) x = static_cast<std::byte>(in_.bits());
    return memory.back().data() + guard;
  }

  void grow(std::int32_t b, std::int32_t h, std::int32_t n) {
    for (std::int32_t g = 0; g < shape_.heads; ++g)
      if (!per_head_ || g == h) set_length(b, g, n + 1);
    if (identity_ || n % page_size_ != 0) return;
    const_cast<Entry&>(view.pages.entries_of(b, h)[n / page_size_]) = free_.back();
    free_.pop_back();
  }
  void write_token(component const& c, std::int32_t b, std::int32_t h, std::int32_t t, std::int32_t position) {
    std::int32_t const e = size_of(c.type), per_run = c.rows.run_bytes / e;
    for (std::int32_t d = 0; d < per_run * c.rows.n_runs; ++d) {
      std::byte* const p = address(view, c, b, h, t, d / per_run) + d % per_run * e;
      auto const put = [&](auto x) { std::memcpy(p, &x, sizeof x); };
      if (c.what == role::position)
        put(position);
      else if (c.what == role::state)
        put(std::abs(in_.number()));
      else if (is_floating(c.type))
        with_type(c.type, [&](auto x) { put(kvevict::from_float<decltype(x)>(in_.number())); });
      else
        for (std::int32_t i = 0; i < e; ++i) p[i] = static_cast<std::byte>(in_.bits());
    }
  }

  input& in_;
  shape shape_;
  bool identity_, per_head_, csr_, interleaved_, common_table_ = false, layers_apart_ = false;
  std::int32_t page_size_;
  std::int64_t page_bytes_ = 0;       // of a table of addresses
  std::int64_t pool_ = 0;             // pages
  std::vector<std::int32_t> tokens_;  // (B·H) at first
  std::vector<Entry> free_;
};

/// Strides that nest, in any order of the dimensions, with gaps here and there.
struct nest {
  std::int64_t strides[6], bytes;  // layer, page, head, slot, run, twin; all

  nest(input& in, std::array<std::int64_t, 6> const& extents, std::int64_t run_bytes, std::int64_t element) {
    std::vector<std::size_t> order{0, 1, 2, 3, 4, 5};
    if (!in.one_in(3)) {
      std::swap(order[4], order[in.between(0, 4)]);  // mostly as engines have it: pages, then heads and slots
      if (in.one_in(2)) std::swap(order[2], order[3]);
    } else {
      for (std::size_t i = 6; i > 1; --i) std::swap(order[i - 1], order[in.below(i)]);
    }
    bytes = run_bytes;
    for (std::size_t i = 6; i-- > 0;) {
      if (in.one_in(6)) bytes += element * in.between(1, 4);
      strides[order[i]] = bytes;
      bytes *= extents[order[i]];
    }
  }
};

/// One component, and with a twin V beside K in the same memory.
template <class Entry>
void cache<Entry>::add(role what, dtype type, std::int32_t runs, std::int32_t elements, bool common, bool twin) {
  std::int32_t const e = size_of(type), layers = layers_apart_ ? shape_.layers : 1, H = shape_.heads;
  std::int64_t const heads = common || (per_head_ && !identity_) ? 1 : H, in_pool = of_pointers ? 1 : pool_;
  nest n(in_, {layers, in_pool, heads, page_size_, runs, twin ? 2 : 1}, std::int64_t{elements} * e, e);
  if (interleaved_) {  // (layers, pages, slots, heads): a table per head, and a page is every H-th row
    std::int64_t const row = elements * e, page = page_size_ * H * row;
    n.strides[1] = row, n.strides[3] = H * row, n.strides[0] = (of_pointers ? 1 : blocks()) * page;
    n.strides[5] = n.strides[0] * layers, n.bytes = n.strides[5] * (twin ? 2 : 1);
  }
  component c;
  c.what = what, c.type = type;
  c.rows.page_count = of_pointers && in_.one_in(2) ? 0 : interleaved_ ? blocks() * page_size_ * H : pool_;
  c.rows.layer_stride = layers_apart_ ? n.strides[0] : 0;
  c.rows.page_stride = of_pointers ? 0 : n.strides[1];
  c.rows.head_stride = heads > 1 ? n.strides[2] : 0;
  c.rows.slot_stride = n.strides[3], c.rows.run_stride = runs > 1 ? n.strides[4] : 0;
  c.rows.run_bytes = elements * e, c.rows.n_runs = runs;
  if constexpr (of_pointers)
    c.rows.offset = page_bytes_ = (page_bytes_ + 7) / 8 * 8, page_bytes_ += n.bytes;
  else
    c.rows.base = allocate(n.bytes);
  view = view.with(c);
  if (!twin) return;
  c.what = role::v, c.rows.offset += n.strides[5];
  view = view.with(c);
}

template <class Entry> void cache<Entry>::choose_components() {
  for (std::int32_t b = 0; b < shape_.sequences; ++b)
    for (std::int32_t h = 0; h < (per_head_ ? shape_.heads : 1); ++h)
      pool_ += pages_of(tokens_[static_cast<std::size_t>(b * shape_.heads + h)]);
  pool_ = identity_ ? shape_.sequences / shape_.layers : pool_ + 3;
  constexpr dtype floats[] = {dtype::f32, dtype::f16, dtype::bf16};
  dtype const type = in_.pick(floats);
  bool const mla = !per_head_ && in_.one_in(10), common = !per_head_ && in_.one_in(3);
  bool const alone = interleaved_ && of_pointers;  // all rows of such a page are equally wide
  std::int32_t const D = shape_.head_dim, runs = D % 2 == 0 && !interleaved_ && in_.one_in(3) ? D / 2 : 1;
  int const values = alone ? 0 : in_.below(3);
  add(role::k, type, runs, D / runs, mla, values == 0);
  if (values == 1) add(role::v, in_.pick(floats), 1, in_.between(1, 9), mla, false);
  if (values == 2) {  // values are keys, or a part of them
    component v = view.components[0];
    v.what = role::v, v.alias_of = 0;
    if (runs == 1 && in_.one_in(2)) v.rows.run_bytes = in_.between(1, D) * size_of(type);
    view = view.with(v);
  }
  if (alone) return;
  if (!in_.one_in(3)) add(role::position, dtype::i32, 1, 1, common, false);
  if (shape_.state_floats > 0) add(role::state, dtype::f32, 1, shape_.state_floats, false, false);
  if (in_.one_in(3))
    add(role::k_scale, dtype::opaque, interleaved_ ? 1 : in_.between(1, 3), in_.between(1, 5), common, false);
}

/// All pages, in any order; ids with tag bits or without.
template <class Entry> void cache<Entry>::make_pages() {
  std::int32_t const H = interleaved_ ? shape_.heads : 1;
  std::int64_t const row = view.components[0].rows.run_bytes;
  if constexpr (of_pointers) {
    std::int64_t const bytes = (page_bytes_ + 7) / 8 * 8;
    bool const apart = in_.one_in(2);
    std::byte* const whole = apart ? nullptr : allocate(blocks() * bytes);
    for (std::int64_t i = 0; i < blocks(); ++i) {
      std::byte* const page = apart ? allocate(bytes) : whole + i * bytes;
      for (std::int32_t h = 0; h < H; ++h) free_.push_back(page + h * row);
    }
  } else {
    view.pages.index_mask = in_.one_in(4) ? 0xffff : -1;
    for (std::int64_t i = 0; i < blocks(); ++i)
      for (std::int32_t h = 0; h < H; ++h) {
        std::int64_t const id = interleaved_ ? i * page_size_ * H + h : i;
        free_.push_back(static_cast<Entry>(view.pages.index_mask == -1 || in_.one_in(2) ? id : id | 0x50000));
      }
  }
  in_.shuffle(free_);
}

template <class Entry> void cache<Entry>::choose_table() {
  if (identity_) {
    view.pages.columns = 1, view.pages.head_stride = per_head_ ? 1 : 0;
    return;
  }
  make_pages();
  std::int32_t const per_layer = shape_.sequences / shape_.layers, heads = per_head_ ? shape_.heads : 1,
                     tables = common_table_ ? 1 : shape_.layers;
  std::int64_t columns = 1;
  for (std::int32_t const n : tokens_) columns = std::max(columns, pages_of(n));
  auto const stray = [&] {
    if constexpr (of_pointers)
      return Entry{nullptr};
    else
      return static_cast<Entry>(in_.one_in(2) ? -1 : 0);
  };
  auto const longest = [&](std::int32_t l, std::int32_t s, std::int32_t h) {  // in the layers of a common table
    std::int32_t n = 0;
    for (std::int32_t k = l; k < (common_table_ ? shape_.layers : l + 1); ++k)
      n = std::max(n, tokens_[static_cast<std::size_t>((k * per_layer + s) * shape_.heads + h)]);
    return n;
  };
  std::int64_t const pad = csr_ ? 0 : in_.below(3);
  if (in_.one_in(2)) entries.push_back(stray());  // the table does not begin with the array
  std::size_t const first = entries.size();
  for (std::int32_t l = 0; l < tables; ++l)
    for (std::int32_t s = 0; s < per_layer; ++s)
      for (std::int32_t h = 0; h < heads; ++h) {
        row_begin.push_back(static_cast<std::int32_t>(entries.size() - first));
        std::int32_t const n = longest(l, s, h);
        std::int64_t const used = (n + page_size_ - 1) / page_size_, room = csr_ ? pages_of(n) : columns + pad;
        for (std::int64_t i = 0; i < room; ++i) {
          entries.push_back(i < used ? free_.back() : stray());
          if (i < used) free_.pop_back();
        }
      }
  row_begin.push_back(static_cast<std::int32_t>(entries.size() - first));
  view.pages.entries = entries.data() + first;
  view.pages.row_begin = csr_ ? row_begin.data() : nullptr;
  view.pages.columns = static_cast<std::int32_t>(columns);
  view.pages.head_stride = per_head_ ? columns + pad : 0;
  view.pages.seq_stride = heads * (columns + pad);
  view.pages.layer_stride = common_table_ || shape_.layers == 1 ? 0
                            : csr_                              ? per_layer * heads
                                                                : per_layer * view.pages.seq_stride;
}

/// Prefixes that several sequences share, and rows out of order.
template <class Entry> void cache<Entry>::choose_order() {
  if (!identity_ && in_.one_in(4)) {
    read_only.assign(static_cast<std::size_t>(shape_.sequences), 0);
    std::int32_t donor = in_.below(shape_.sequences);
    for (std::int32_t b = 0; b < shape_.sequences; ++b) {
      std::int32_t shortest = 1 << 20;
      for (std::int32_t h = 0; h < shape_.heads; ++h)
        shortest = std::min({shortest, view.length(b, h), view.length(donor, h)});
      std::int32_t const pages = in_.between(0, shortest / page_size_);
      if (shape_.layers > 1 || in_.one_in(3)) {  // a prefix of its own
        read_only[static_cast<std::size_t>(b)] =
            in_.one_in(8) ? 64 : std::max(read_only[std::size_t(b)], pages * page_size_);
        continue;
      }
      for (std::int32_t of : {b, donor})
        read_only[static_cast<std::size_t>(of)] = std::max(read_only[static_cast<std::size_t>(of)], pages * page_size_);
      for (std::int32_t h = 0; b != donor && h < (per_head_ ? shape_.heads : 1); ++h)
        for (std::int32_t i = 0; i < pages; ++i)
          const_cast<Entry&>(view.pages.entries_of(b, h)[i]) = view.pages.entries_of(donor, h)[i];
    }
    view.read_only = read_only.data();
  }
  if (view.find(role::position) != nullptr && in_.one_in(6)) view.order = kvevict::row_order::scattered;
}

template <class Entry> void cache<Entry>::fill() {
  next_position.assign(static_cast<std::size_t>(shape_.sequences), 0);
  for (std::int32_t b = 0; b < shape_.sequences; ++b)
    for (std::int32_t h = 0; h < shape_.heads; ++h) {
      std::int32_t const n = view.length(b, h);
      std::vector<std::int32_t> positions;
      for (std::int32_t t = 0, p = 0; t < n; ++t) positions.push_back(p += in_.between(1, 3));
      if (view.order == kvevict::row_order::scattered)  // a prefix is first in position, too
        in_.shuffle(positions, static_cast<std::size_t>(std::min(n, view.read_only_tokens(b))));
      for (component const& c : view)
        for (std::int32_t t = 0; t < n && (h == 0 || !view.shared_by_heads(c)); ++t)
          write_token(c, b, h, t, positions[static_cast<std::size_t>(t)]);
      for (std::int32_t const p : positions)
        next_position[std::size_t(b)] = std::max(next_position[std::size_t(b)], p + 1);
    }
}

}  // namespace fuzz
