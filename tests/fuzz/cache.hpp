// SPDX-License-Identifier: Apache-2.0
// A random cache with memory of its own: every form of table, nested strides in any order, guard bytes around it all.
#pragma once

#include <cstring>
#include <memory>
#include <type_traits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/rope.hpp>

#include "fuzz/input.hpp"
#include "support/quantised_case.hpp"

namespace fuzz {

using kvevict::component;
using kvevict::dtype;
using kvevict::role;

/// Bytes between guards; all of it belongs to the image that laws compare.
using image = std::vector<std::vector<std::byte>>;
inline constexpr std::size_t guard = 64;

/// What K, and V as a rule, are made of: numbers, a format of quantised_case, or codes with scales of every channel in
/// the page.
struct coding {
  quantised_case::format const* format = nullptr;
  bool by_channel = false;

  bool codes() const { return format != nullptr || by_channel; }
  std::int32_t row_bytes() const { return by_channel ? quantised_case::D : format->row_bytes; }
  bool one_run() const { return by_channel || format->one_run; }

  static coding choose(input& in) {
    auto const& all = quantised_case::formats();
    if (!in.one_in(4)) return {};
    if (in.one_in(4)) return {nullptr, true};
    return {&all[in.below(all.size())], false};
  }
};

struct shape {
  std::int32_t sequences, heads, layers, head_dim, state_floats;
  coding of{};
};

template <class Entry> class cache {
 public:
  static constexpr bool of_pointers = std::is_same_v<Entry, std::byte*>;
  using view_type = kvevict::layer_view<Entry>;

  cache(input& in, shape const& s) : in_(in), shape_(s) {
    identity_ = !of_pointers && in.one_in(6);
    per_head_ = in.one_in(2);
    csr_ = !identity_ && in.one_in(3);
    interleaved_ = !identity_ && per_head_ && in.one_in(4) && !s.of.codes();
    page_size_ = identity_ ? 48 : in.one_in(6) ? 1 : in.between(1, 9);
    choose_lengths();
    choose_layers();
    choose_components();
    choose_table();
    choose_order();
    choose_own_pages();
    fill();
  }
  cache(cache const&) = delete;
  cache& operator=(cache const&) = delete;

  view_type view;
  image memory;  // every buffer
  std::vector<Entry> entries;
  std::vector<std::int32_t> lengths, row_begin, read_only;
  std::vector<std::int32_t> next_position;  // (B)
  kvevict::rope rope{};                     // of the keys; not given where they say something else
  bool forked = false;                      // sequences have pages in common that nobody declares

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
    Entry const page = row[c.table_offset + t / p.page_size];
    if constexpr (of_pointers)
      return page + offset;
    else
      return c.rows.base + ((static_cast<std::int64_t>(page) & p.index_mask) * c.rows.page_stride + offset);
  }
  static void read(view_type const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t,
                   std::vector<std::byte>& out) {
    for (std::int32_t run = 0; run < c.rows.n_runs; ++run) {
      std::byte const* const p = address(v, c, b, h, t, run);
      out.insert(out.end(), p, p + c.rows.run_bytes);
    }
  }
  /// A row as floats.
  void numbers(view_type const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t,
               std::vector<float>& out) const {
    std::vector<std::byte> bytes, scales;
    read(v, c, b, h, t, bytes);
    auto const* const x = reinterpret_cast<quantised_case::byte const*>(bytes.data());
    out.resize(static_cast<std::size_t>(c.width()));
    if (component const* const s = c.quant.place == kvevict::scale_place::component ? v.scales_of(c) : nullptr)
      read(v, *s, b, h, t, scales);
    auto const* const of = reinterpret_cast<quantised_case::byte const*>(scales.data());
    for (std::size_t d = 0; d < out.size(); ++d)
      if (!c.is_quantised())
        with_type(c.type, [&](auto y) {
          std::memcpy(&y, x + d * sizeof y, sizeof y);
          out[d] = kvevict::to_float(y);
        });
      else if (shape_.of.by_channel)
        out[d] = (static_cast<float>(x[d]) - channel(v, c, b, h, t, d, 1)) * channel(v, c, b, h, t, d, 0);
      else
        out[d] = static_cast<float>(shape_.of.format->number(x, of, h, static_cast<int>(d)));
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
    if (layers_share_table() || !read_only.empty() || forked) return;
    free_.push_back(page);
  }
  std::vector<Entry>& free_pages() { return free_; }
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
  void add_by_channel(role what);
  void choose_codes();
  void choose_rope();
  void share_pages();
  void choose_components();
  void make_pages();
  void choose_table();
  void choose_order();
  void choose_own_pages();
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
    auto* const row = const_cast<Entry*>(view.pages.entries_of(b, h)) + n / page_size_;
    row[0] = free_.back();
    if (!view.has_one_table()) row[own_pages_] = other_page(free_.back());
    free_.pop_back();
  }
  /// The page of a component with pages of its own, for each of K's.
  Entry other_page(Entry of_k) const {
    if constexpr (of_pointers)
      return of_k;
    else {
      std::int64_t const id = static_cast<std::int64_t>(of_k) & view.pages.index_mask;
      return id < 0 || id >= pool_ ? of_k : static_cast<Entry>(static_cast<std::int64_t>(of_k) - id + pool_ - 1 - id);
    }
  }
  /// Scale (0) or zero point (1) of channel d in the page of token t.
  static float channel(view_type const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t,
                       std::size_t d, int which) {
    float x;
    std::byte const* const at =
        address(v, c, b, h, t - t % v.pages.page_size, 0) + (which == 0 ? c.quant.scale_at : c.quant.zero_at) + 4 * d;
    std::memcpy(&x, at, 4);
    return x;
  }
  void write_codes(component const& c, std::int32_t b, std::int32_t h, std::int32_t t);
  void write_token(component const& c, std::int32_t b, std::int32_t h, std::int32_t t, std::int32_t position) {
    if (c.is_quantised()) return write_codes(c, b, h, t);
    if (shape_.of.codes() && (c.what == role::v_scale || (c.what == role::k_scale && c.type != dtype::opaque)))
      return;  // with the codes
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
  std::int64_t own_pages_ = 0;        // entries from the table to that of components with pages of their own
  std::vector<std::int32_t> tokens_;  // (B·H) at first
  std::vector<std::int32_t> alike_;   // (B) of a prefix that others have, too
  std::vector<Entry> free_;
};

}  // namespace fuzz

#include "fuzz/components.hpp"
#include "fuzz/tables.hpp"
