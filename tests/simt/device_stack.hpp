// SPDX-License-Identifier: Apache-2.0
// A stack of layers in device memory.
#pragma once

#include "simt/device_cache.hpp"
#include "support/stack.hpp"

namespace simt_test {

/// A stack in device memory.
class device_stack {
 public:
  explicit device_stack(support::stack& of)
      : of_(of), pool_(of.pool), table_(of.table), begin_(of.row_begin), lengths_(of.lengths) {}

  kvevict::layer_view<std::int32_t> whole() const { return moved(of_.whole()); }
  kvevict::layer_view<std::int32_t> layer(std::int32_t l) const { return moved(of_.layer(l)); }
  std::vector<std::byte> pool() const { return pool_.read(); }

 private:
  kvevict::layer_view<std::int32_t> moved(kvevict::layer_view<std::int32_t> v) const {
    for (std::int32_t c = 0; c < v.component_count; ++c) {
      std::byte*& base = v.components[static_cast<std::size_t>(c)].rows.base;
      base = pool_.data() + (base - of_.pool.data());
    }
    v.pages.entries = table_.data();
    if (v.pages.row_begin != nullptr) v.pages.row_begin = begin_.data() + (v.pages.row_begin - of_.row_begin.data());
    v.lengths.data = lengths_.data() + (v.lengths.data - of_.lengths.data());
    return v;
  }

  support::stack& of_;
  on_device<std::byte> pool_;
  on_device<std::int32_t> table_, begin_, lengths_;
};

}  // namespace simt_test
