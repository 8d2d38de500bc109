// SPDX-License-Identifier: Apache-2.0
// Members of cache: components of every layout, and the pages that they lie in.
#pragma once

#include "fuzz/cache.hpp"

namespace fuzz {

/// Strides that nest, in any order of the dimensions, with gaps here and there.
struct nest {
  std::int64_t strides[6], bytes;  // layer, page, head, slot, run, twin; all

  nest(input& in, std::array<std::int64_t, 6> const& extents, std::int64_t run_bytes, std::int64_t element) {
    std::vector<std::size_t> order{0, 1, 2, 3, 4, 5};
    if (!in.one_in(3)) {
      std::swap(order[4], order[in.below(std::size_t{5})]);  // mostly as engines have it: pages, then heads and slots
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
  if (shape_.of.codes()) return choose_codes();
  constexpr dtype floats[] = {dtype::f32, dtype::f16, dtype::bf16};
  dtype const type = in_.pick(floats);
  bool const mla = !per_head_ && in_.one_in(10), common = !per_head_ && in_.one_in(3);
  bool const alone = interleaved_ && of_pointers;  // all rows of such a page are equally wide
  std::int32_t const D = shape_.head_dim, runs = D % 2 == 0 && !interleaved_ && in_.one_in(3) ? D / 2 : 1;
  int const values = alone ? 0 : in_.below(3);
  add(role::k, type, runs, D / runs, mla, values == 0);
  if (values == 1) add(role::v, in_.pick(floats), 1, in_.between(1, 9), mla, false);
  choose_rope();
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

/// What has turned the keys.
template <class Entry> void cache<Entry>::choose_rope() {
  constexpr kvevict::rotation others[] = {kvevict::rotation::unsaid, kvevict::rotation::none,
                                          kvevict::rotation::opaque};
  component& k = view.components[0];
  std::int32_t const D = shape_.head_dim;
  k.turned_by = in_.pick(others);
  if (D % 2 != 0 || in_.one_in(3)) return;
  k.turned_by = kvevict::rotation::rope;
  rope.base = 10000, rope.width = in_.one_in(2) ? 0 : 2 * in_.between(1, D / 2);
  rope.pairs = in_.one_in(2) ? kvevict::rope_pairs::halves : kvevict::rope_pairs::neighbours;
}

/// Rows of codes: the format says what they hold, positions and state stand beside them.
template <class Entry> void cache<Entry>::choose_codes() {
  coding const& of = shape_.of;
  std::int32_t const runs = !of.one_run() && in_.one_in(3) ? 2 : 1, words = of.row_bytes() / 4 / runs;
  int const values = in_.below(3);  // codes, too; numbers; what the keys are
  if (of.by_channel) {
    add_by_channel(role::k);
    if (values == 0) add_by_channel(role::v);
  } else {
    add(role::k, dtype::f32, runs, words, false, values == 0);
    for (std::int32_t i = 0; i < view.component_count; ++i)
      view.components[static_cast<std::size_t>(i)] = of.format->describe(view.components[static_cast<std::size_t>(i)]);
  }
  component const k = view.components[0];
  if (values == 1) add(role::v, dtype::f16, 1, in_.between(1, 9), false, false);
  if (values == 2) {
    component v = k;
    v.what = role::v, v.alias_of = 0;
    view = view.with(v);
  }
  if (!of.by_channel && of.format->scale_floats != 0) {
    dtype const type = k.quant.type;
    std::int32_t const elements = 4 * of.format->scale_floats / size_of(type);
    add(role::k_scale, type, 1, elements, false, false);
    if (values == 0) add(role::v_scale, type, 1, elements, false, false);
  }
  if (!in_.one_in(3)) add(role::position, dtype::i32, 1, 1, !per_head_ && in_.one_in(3), false);
  if (shape_.state_floats > 0) add(role::state, dtype::f32, 1, shape_.state_floats, false, false);
}

/// (layers, pages, heads): slots, then a scale and a zero point of every channel.
template <class Entry> void cache<Entry>::add_by_channel(role what) {
  constexpr std::int32_t D = quantised_case::D;
  std::int64_t const slot = D + 4 * in_.below(3), head = page_size_ * slot + 8 * D,
                     heads = per_head_ && !identity_ ? 1 : shape_.heads, page = heads * head,
                     layers = layers_apart_ ? shape_.layers : 1, pages = of_pointers ? 1 : pool_;
  component c;
  c.what = what;
  c.rows.page_count = pool_, c.rows.page_stride = of_pointers ? 0 : page, c.rows.head_stride = heads > 1 ? head : 0;
  c.rows.layer_stride = layers_apart_ ? pages * page : 0;
  c.rows.slot_stride = slot, c.rows.run_bytes = D, c.rows.n_runs = 1;
  auto const at = static_cast<std::int32_t>(page_size_ * slot);
  c = quantised_case::maker::by_channel(c, dtype::u8, at, at + 4 * D);
  if constexpr (of_pointers)
    c.rows.offset = page_bytes_ = (page_bytes_ + 7) / 8 * 8, page_bytes_ += layers * page;
  else
    c.rows.base = allocate(layers * pages * page);
  view = view.with(c);
}

/// Of a token, with its scales; the first one of a page brings those of the channels.
template <class Entry>
void cache<Entry>::write_codes(component const& c, std::int32_t b, std::int32_t h, std::int32_t t) {
  if (c.alias_of >= 0) return;
  reference::generator random(in_.bits());
  if (shape_.of.by_channel) {
    std::byte* const row = address(view, c, b, h, t, 0);
    for (std::int32_t d = 0; d < c.rows.run_bytes; ++d) row[d] = static_cast<std::byte>(random.bits());
    std::byte* const page = address(view, c, b, h, t - t % page_size_, 0);
    for (std::int32_t d = 0; d < quantised_case::D && t % page_size_ == 0; ++d) {
      auto* const scale = reinterpret_cast<quantised_case::byte*>(page + c.quant.scale_at + 4 * d);
      auto* const zero = reinterpret_cast<quantised_case::byte*>(page + c.quant.zero_at + 4 * d);
      quantised_case::put_f32(scale, random.uniform(0.005, 0.02));
      quantised_case::put_f32(zero, static_cast<double>(random.below(512)) / 2);
    }
    return;
  }
  quantised_case::format const& f = *shape_.of.format;
  std::vector<quantised_case::byte> row(static_cast<std::size_t>(f.row_bytes)),
      scales(static_cast<std::size_t>(4 * f.scale_floats));
  f.fill(row.data(), scales.data(), random);
  for (std::int32_t run = 0; run < c.rows.n_runs; ++run)
    std::memcpy(address(view, c, b, h, t, run), row.data() + run * c.rows.run_bytes,
                static_cast<std::size_t>(c.rows.run_bytes));
  if (f.scale_floats != 0) std::memcpy(address(view, *view.scales_of(c), b, h, t, 0), scales.data(), scales.size());
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

}  // namespace fuzz
