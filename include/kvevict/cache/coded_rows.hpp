// SPDX-License-Identifier: Apache-2.0
// Where the rows of a quantised component lie, and their scales.
#pragma once

#include <cstddef>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/row_code.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The coded rows of one (sequence, head).
template <class Entry> class coded_rows {
 public:
  KVEVICT_HOST_DEVICE constexpr coded_rows(layer_view<Entry> const& view, component const& c, std::int32_t b,
                                           std::int32_t h)
      : rows_(view.rows_of(c, b, h)), scales_(rows_), place_(c.quant.place) {
    if (place_ == scale_place::component) {
      component const* const of = view.scales_of(c);
      if (of != nullptr) scales_ = view.rows_of(*of, b, h);
    } else if (place_ == scale_place::array) {
      entries_ = static_cast<std::byte const*>(c.quant.entries) +
                 (view.pages.layer_of(b) * c.quant.layer_stride +
                  (c.scope == quant_scope::head ? std::int64_t{h} * c.quant.stride : 0));
    }
  }
  KVEVICT_HOST_DEVICE constexpr coded_row operator()(std::int64_t token) const {
    std::byte const* const codes = rows_(token);
    switch (place_) {
      case scale_place::array: return {codes, entries_};
      case scale_place::component: return {codes, scales_(token)};
      case scale_place::page: return {codes, rows_.slot(token / rows_.page_size, 0)};
      default: return {codes, codes};
    }
  }

 private:
  token_rows<Entry> rows_, scales_;
  std::byte const* entries_ = nullptr;
  scale_place place_;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
