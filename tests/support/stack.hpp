// SPDX-License-Identifier: Apache-2.0
// The caches of several layers in one pool: as one view, and layer by layer.
#pragma once

#include <cstring>

#include <kvevict/cache/layer_view.hpp>

#include "support/batch.hpp"

namespace support {

/// layers_apart    [layers][pages]…, one table for all layers       (one tensor per layer, cut from one allocation)
/// layer_in_page   [pages][layers]…, one table for all layers       (TensorRT-LLM, TurboMind)
/// own_tables      [pages]…, every layer has pages and a CSR table of its own
enum class placed : std::uint8_t { layers_apart, layer_in_page, own_tables };

/// Sequence l·S + s of the batch is sequence s in layer l. Every head has its own table, or all of a sequence share
/// one.
class stack {
 public:
  std::int32_t L, S, H, D, P = 4, columns = 0, pages = 0;
  placed how;
  bool per_head;
  std::vector<std::byte> pool;
  std::vector<std::int32_t> table, row_begin, lengths;

  stack(batch const& in, std::int32_t layers, placed where, bool heads_apart)
      : L(layers), S(int32(in.B()) / layers), H(int32(in.H)), D(int32(in.D)), how(where), per_head(heads_apart) {
    for (std::size_t const n : in.N) columns = std::max(columns, (int32(n) + P - 1) / P);
    std::int32_t const tables = S * (per_head ? H : 1) * (how == placed::own_tables ? L : 1);
    pages = tables * columns + 1;
    for (std::int32_t i = 0; i < tables * columns; ++i)
      table.push_back(int32(static_cast<std::size_t>(i) * 7919 % static_cast<std::size_t>(tables * columns)));
    for (std::int32_t t = 0; t <= tables; ++t) row_begin.push_back(t * columns);
    for (std::size_t const n : in.N)
      for (std::int32_t h = 0; h < H; ++h) lengths.push_back(int32(n));
    pool.resize(static_cast<std::size_t>(bytes_before(4)));
    fill(in);
  }

  kvevict::layer_view<std::int32_t> whole() { return view_of(0, L); }
  kvevict::layer_view<std::int32_t> layer(std::int32_t l) { return view_of(l, 1); }

 private:
  static constexpr kvevict::role roles[] = {kvevict::role::k, kvevict::role::v, kvevict::role::position,
                                            kvevict::role::state};
  [[nodiscard]] std::int64_t row_bytes(std::size_t c) const { return c < 2 ? D * 4 : 4; }
  /// Where component c begins: behind all pages of all layers of those before it.
  [[nodiscard]] std::int64_t bytes_before(std::size_t c) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < c; ++i)
      sum += row_bytes(i) * P * (per_head ? 1 : H) * pages * (how == placed::own_tables ? 1 : L);
    return sum;
  }

  kvevict::layer_view<std::int32_t> view_of(std::int32_t first, std::int32_t count) {
    kvevict::layer_view<std::int32_t> v;
    std::int32_t const rows = S * (per_head ? H : 1), own = how == placed::own_tables ? 1 : 0;
    v.pages.sequences = count * S, v.pages.heads = H, v.pages.columns = columns, v.pages.page_size = P,
    v.pages.layers = count;
    v.pages.entries = table.data();
    v.pages.seq_stride = columns * (per_head ? H : 1), v.pages.head_stride = per_head ? columns : 0;
    if (own != 0) v.pages.row_begin = row_begin.data() + first * rows, v.pages.layer_stride = rows;
    v.lengths = {lengths.data() + first * S * H, H, 1};
    for (std::size_t c = 0; c < 4; ++c) {
      kvevict::component x;
      std::int64_t const block = row_bytes(c) * P * (per_head ? 1 : H);
      auto& m = x.rows;
      m.page_count = pages, m.run_bytes = static_cast<std::int32_t>(row_bytes(c)), m.slot_stride = row_bytes(c),
      m.head_stride = per_head ? 0 : row_bytes(c) * P;
      m.page_stride = how == placed::layer_in_page ? block * L : block;
      m.layer_stride = how == placed::layer_in_page ? block : how == placed::layers_apart ? block * pages : 0;
      m.base = pool.data() + bytes_before(c) + first * m.layer_stride;
      x.what = roles[c], x.type = roles[c] == kvevict::role::position ? kvevict::dtype::i32 : kvevict::dtype::f32;
      v = v.with(x);
    }
    return v;
  }

  /// Layer by layer, so that nothing here knows what a stack is.
  void fill(batch const& in) {
    for (std::int32_t l = 0; l < L; ++l)
      for (std::int32_t s = 0; s < S; ++s) {
        auto const v = layer(l);
        auto const& of = in.layers[static_cast<std::size_t>(l * S + s)];
        for (std::int32_t h = 0; h < H; ++h)
          for (std::int32_t t = 0; t < v.length(s, h); ++t) {
            auto const at = [&](reference::cube const& x, std::int32_t d) {
              return static_cast<float>(
                  x.at(static_cast<std::size_t>(h), static_cast<std::size_t>(t), static_cast<std::size_t>(d)));
            };
            for (std::int32_t d = 0; d < D; ++d) {
              float const k = at(of.keys, d), x = at(of.values, d);
              std::memcpy(v.row(v.components[0], s, h, t) + d * 4, &k, 4);
              std::memcpy(v.row(v.components[1], s, h, t) + d * 4, &x, 4);
            }
            std::memcpy(v.row(v.components[2], s, h, t), &t, 4);
          }
      }
  }
};

/// The sequences of layer l of a stack.
inline batch layer_of(batch const& in, std::size_t l, std::size_t layers) {
  std::size_t const S = in.B() / layers;
  batch out = in;
  auto const first = static_cast<std::ptrdiff_t>(l * S), last = static_cast<std::ptrdiff_t>((l + 1) * S);
  out.N.assign(in.N.begin() + first, in.N.begin() + last);
  out.layers.assign(in.layers.begin() + first, in.layers.begin() + last);
  return out;
}

}  // namespace support
