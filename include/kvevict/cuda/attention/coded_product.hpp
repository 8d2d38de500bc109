// SPDX-License-Identifier: Apache-2.0
// Products with quantised keys.
#pragma once

#include <kvevict/cache/row_code.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/float_at.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A key's bytes and scales, of both its parts; or a query, whose second part is not used.
struct coded_key {
  coded_row first, second;
};

/// Keys of codes, or in two tensors one of which is: any types and layouts, each key decoded as it is read. Each
/// product is one chain of additions over d, through the first part and then the second.
struct coded_product {
  static constexpr bool is_coded = true;
  row_code first, second;  // of no elements: one part
  dtype query;
  bool keys_are_rows;

  struct rows {
    coded_key a, b;
  };
  struct columns {
    coded_key x, y;
  };

  coded_product transposed() const { return {first, second, query, !keys_are_rows}; }

  template <class Row> KVEVICT_DEVICE rows load_rows(thread&, Row a, Row b) const { return {key_of(a), key_of(b)}; }
  template <class Column> KVEVICT_DEVICE columns load_columns(thread& t, Column column) const {
    return {key_of(column(t.lane() % 4 * 2)), key_of(column(t.lane() % 4 * 2 + 1))};
  }
  template <int M, int N>
  KVEVICT_DEVICE void multiply(thread&, rows const (&r)[M], columns const (&k)[N], accumulator (&z)[M][N]) const {
    KVEVICT_UNROLL
    for (int m = 0; m < M; ++m) KVEVICT_UNROLL
    for (int n = 0; n < N; ++n) z[m][n] = plus_products(r[m], k[n], z[m][n]);
  }

 private:
  KVEVICT_DEVICE static coded_key key_of(coded_key const& key) { return key; }
  KVEVICT_DEVICE static coded_key key_of(std::byte const* query) { return {{query, nullptr}, {nullptr, nullptr}}; }

  KVEVICT_CALL accumulator plus_products(rows r, columns k, accumulator z) const {
    if (keys_are_rows) {
      z = plus_part<true>(first, r.a.first, r.b.first, k.x.first.codes, k.y.first.codes, z);
      return plus_part<true>(second, r.a.second, r.b.second, behind(k.x), behind(k.y), z);
    }
    z = plus_part<false>(first, k.x.first, k.y.first, r.a.first.codes, r.b.first.codes, z);
    return plus_part<false>(second, k.x.second, k.y.second, behind(r.a), behind(r.b), z);
  }
  /// The elements of a query behind those of the first part.
  KVEVICT_DEVICE std::byte const* behind(coded_key const& q) const {
    return q.first.codes + first.width() * size_of(query);
  }

  template <bool KeysAreRows>
  KVEVICT_DEVICE accumulator plus_part(row_code const& code, coded_row const& k, coded_row const& l, std::byte const* q,
                                       std::byte const* p, accumulator z) const {
    KVEVICT_KEEP_LOOP
    for (std::int32_t d = 0; d < code.width();) {
      code_piece const here = code.piece_at(k, d), there = code.piece_at(l, d);
      KVEVICT_KEEP_LOOP
      for (std::int32_t i = 0; i < here.count; ++i, ++d) {
        float const a = code.value(here, i), b = code.value(there, i), x = float_at(query, q, d),
                    y = float_at(query, p, d);
        z.values[0] = fma(a, x, z.values[0]), z.values[3] = fma(b, y, z.values[3]);
        z.values[KeysAreRows ? 1 : 2] = fma(a, y, z.values[KeysAreRows ? 1 : 2]);
        z.values[KeysAreRows ? 2 : 1] = fma(b, x, z.values[KeysAreRows ? 2 : 1]);
      }
    }
    return z;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
