// SPDX-License-Identifier: Apache-2.0
// Products of 16 rows with 8 columns by a warp: on tensor cores, or one multiplication after the other.
//
// Query rows are the rows and keys the columns; of a product's transposed() it is the other way round. What a kernel
// holds best makes the rows: they take twice the registers. A product type has `rows` (what a lane holds of rows lane/4
// and lane/4 + 8), `columns` (of column lane/4 for tensor cores, of columns 2·(lane%4) and the next otherwise) and
// multiply(): z[m][n] += rows m · columns n, where value i belongs to row lane/4 + 8·(i/2) and column 2·(lane%4) + i%2.
// Its M·N sums are independent chains that take turns, since each alone waits for the tensor cores.
#pragma once

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/float_at.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Rows and columns of one 16-bit type, 16-byte aligned and in one run, D a multiple of 8. Both operands are read 16
/// bytes a lane, which permutes d alike in both. `Chunks` of 32 elements are held in registers; 0: read again for every
/// product, for any D.
template <class T, int Chunks> struct tensor_product {
  std::int32_t D;

  struct rows {
    std::byte const *p, *q;
    vec128 a[Chunks == 0 ? 1 : Chunks], b[Chunks == 0 ? 1 : Chunks];
  };
  struct columns {
    std::byte const* p;
    vec128 k[Chunks == 0 ? 1 : Chunks];
  };

  tensor_product transposed() const { return *this; }

  KVEVICT_DEVICE rows load_rows(thread& t, std::byte const* first, std::byte const* second) const {
    rows out;
    out.p = first, out.q = second;
    KVEVICT_UNROLL
    for (int c = 0; c < Chunks; ++c) out.a[c] = chunk(t, first, c), out.b[c] = chunk(t, second, c);
    return out;
  }
  /// `column(n)` is the start of column n < 8.
  template <class Column> KVEVICT_DEVICE columns load_columns(thread& t, Column column) const {
    columns out;
    out.p = column(t.lane() / 4);
    KVEVICT_UNROLL
    for (int c = 0; c < Chunks; ++c) out.k[c] = chunk(t, out.p, c);
    return out;
  }
  template <int M, int N>
  KVEVICT_DEVICE void multiply(thread& t, rows const (&r)[M], columns const (&k)[N], accumulator (&z)[M][N]) const {
    vec128 a[M], b[M], x[N];
    if constexpr (Chunks == 0) {
      for (int c = 0; c * 32 < D; ++c) {
        KVEVICT_UNROLL
        for (int m = 0; m < M; ++m) a[m] = chunk(t, r[m].p, c), b[m] = chunk(t, r[m].q, c);
        KVEVICT_UNROLL
        for (int n = 0; n < N; ++n) x[n] = chunk(t, k[n].p, c);
        add(t, a, b, x, z);
      }
    } else {
      KVEVICT_UNROLL
      for (int c = 0; c < Chunks; ++c) {
        KVEVICT_UNROLL
        for (int m = 0; m < M; ++m) a[m] = r[m].a[c], b[m] = r[m].b[c];
        KVEVICT_UNROLL
        for (int n = 0; n < N; ++n) x[n] = k[n].k[c];
        add(t, a, b, x, z);
      }
    }
  }

 private:
  KVEVICT_DEVICE vec128 chunk(thread& t, std::byte const* row, int c) const {
    std::int32_t const d = c * 32 + static_cast<std::int32_t>(t.lane() % 4) * 8;
    return d < D ? load_vec128(t, row + d * 2) : vec128{{0, 0, 0, 0}};
  }
  template <int M, int N>
  KVEVICT_DEVICE static void add(thread& t, vec128 const (&a)[M], vec128 const (&b)[M], vec128 const (&k)[N],
                                 accumulator (&z)[M][N]) {
    KVEVICT_UNROLL
    for (int half = 0; half < 4; half += 2) KVEVICT_UNROLL
    for (int m = 0; m < M; ++m) KVEVICT_UNROLL
    for (int n = 0; n < N; ++n)
      multiply_add(t, z[m][n],
                   fragment_a<T>{{a[m].words[half], b[m].words[half], a[m].words[half + 1], b[m].words[half + 1]}},
                   fragment_b<T>{{k[n].words[half], k[n].words[half + 1]}});
  }
};

/// Any types and layouts; each product is one chain of additions over d, which goes over the runs that a key lies in.
struct scalar_product {
  struct side {
    dtype type;
    std::int64_t run_stride;  // bytes from run to run
  };
  std::int32_t runs, run;  // how many, of how many elements
  side of_rows, of_columns;

  struct rows {
    std::byte const *a, *b;
  };
  struct columns {
    std::byte const *x, *y;
  };

  scalar_product transposed() const { return {runs, run, of_columns, of_rows}; }

  KVEVICT_DEVICE rows load_rows(thread&, std::byte const* first, std::byte const* second) const {
    return {first, second};
  }
  template <class Column> KVEVICT_DEVICE columns load_columns(thread& t, Column column) const {
    return {column(t.lane() % 4 * 2), column(t.lane() % 4 * 2 + 1)};
  }

  template <int M, int N>
  KVEVICT_DEVICE void multiply(thread&, rows const (&r)[M], columns const (&k)[N], accumulator (&z)[M][N]) const {
    KVEVICT_UNROLL
    for (int m = 0; m < M; ++m) KVEVICT_UNROLL
    for (int n = 0; n < N; ++n) z[m][n] = plus_products(r[m], k[n], z[m][n]);
  }

  KVEVICT_CALL accumulator plus_products(rows r, columns k, accumulator z) const {
    KVEVICT_KEEP_LOOP
    for (std::int32_t i = 0; i < runs; ++i) KVEVICT_KEEP_LOOP
    for (std::int32_t e = 0; e < run; ++e) {
      std::int64_t const row = i * of_rows.run_stride, column = i * of_columns.run_stride;
      float const a = float_at(of_rows.type, r.a + row, e), b = float_at(of_rows.type, r.b + row, e);
      float const x = float_at(of_columns.type, k.x + column, e), y = float_at(of_columns.type, k.y + column, e);
      z.values[0] = fma(a, x, z.values[0]), z.values[1] = fma(a, y, z.values[1]);
      z.values[2] = fma(b, x, z.values[2]), z.values[3] = fma(b, y, z.values[3]);
    }
    return z;
  }
};

/// A key in two tensors.
struct key_parts {
  std::byte const *first, *second;
};

/// The sum of the products of two parts, one after the other: keys in two tensors, any types and layouts. A query's
/// second part lies `behind` bytes after its first one.
struct split_product {
  static constexpr bool is_split = true;
  scalar_product first, second;
  std::int64_t behind;

  struct rows {
    scalar_product::rows first, second;
  };
  struct columns {
    scalar_product::columns first, second;
  };

  split_product transposed() const { return {first.transposed(), second.transposed(), behind}; }

  KVEVICT_DEVICE key_parts parts_of(key_parts const& key) const { return key; }
  KVEVICT_DEVICE key_parts parts_of(std::byte const* query) const { return {query, query + behind}; }

  template <class Row> KVEVICT_DEVICE rows load_rows(thread& t, Row a, Row b) const {
    key_parts const x = parts_of(a), y = parts_of(b);
    return {first.load_rows(t, x.first, y.first), second.load_rows(t, x.second, y.second)};
  }
  template <class Column> KVEVICT_DEVICE columns load_columns(thread& t, Column column) const {
    return {first.load_columns(t, [&](std::uint32_t k) { return parts_of(column(k)).first; }),
            second.load_columns(t, [&](std::uint32_t k) { return parts_of(column(k)).second; })};
  }
  template <int M, int N>
  KVEVICT_DEVICE void multiply(thread&, rows const (&r)[M], columns const (&k)[N], accumulator (&z)[M][N]) const {
    KVEVICT_UNROLL
    for (int m = 0; m < M; ++m) KVEVICT_UNROLL
    for (int n = 0; n < N; ++n)
      z[m][n] = second.plus_products(r[m].second, k[n].second, first.plus_products(r[m].first, k[n].first, z[m][n]));
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
