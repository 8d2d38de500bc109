// SPDX-License-Identifier: Apache-2.0
// Where the keys of a row of the cache lie, as a product takes them.
#pragma once

#include <type_traits>

#include <kvevict/cache/coded_rows.hpp>
#include <kvevict/cuda/attention/coded_product.hpp>
#include <kvevict/cuda/attention/product.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Where the keys of a row of the cache lie, as a coded_product takes them; and as the others do.
template <class Entry> struct coded_key_rows {
  coded_rows<Entry> first, second;
  std::int32_t page_size;

  KVEVICT_DEVICE coded_key_rows(layer_view<Entry> const& view, component const& keys, std::int32_t b, std::int32_t h)
      : first(view, keys, b, h),
        second(view, view.second_keys() == nullptr ? keys : *view.second_keys(), b, h),
        page_size(view.pages.page_size) {}
  KVEVICT_DEVICE coded_key operator()(std::int64_t token) const { return {first(token), second(token)}; }
  KVEVICT_DEVICE coded_key slot(std::int64_t page, std::int64_t s) const { return (*this)(page * page_size + s); }
};

template <class Entry, class Product> struct plain_key_rows {
  static constexpr bool is_split = requires { Product::is_split; };
  token_rows<Entry> first, second;
  std::int32_t page_size;

  KVEVICT_DEVICE plain_key_rows(layer_view<Entry> const& view, component const& keys, std::int32_t b, std::int32_t h)
      : first(view.rows_of(keys, b, h)), page_size(first.page_size) {
    if constexpr (is_split) second = view.rows_of(*view.second_keys(), b, h);
  }
  KVEVICT_DEVICE auto operator()(std::int64_t token) const {
    if constexpr (is_split)
      return key_parts{first(token), second(token)};
    else
      return first(token);
  }
  KVEVICT_DEVICE auto slot(std::int64_t page, std::int64_t s) const {
    if constexpr (is_split)
      return key_parts{first.slot(page, s), second.slot(page, s)};
    else
      return first.slot(page, s);
  }
};
template <class Product> inline constexpr bool is_coded = requires { Product::is_coded; };
template <class Entry, class Product>
using key_rows = std::conditional_t<is_coded<Product>, coded_key_rows<Entry>, plain_key_rows<Entry, Product>>;

}  // namespace kvevict::inline KVEVICT_ABI::cuda
