// SPDX-License-Identifier: Apache-2.0
// A contiguous view: a pointer with its extent. (std::span is C++20; engines still build as C++17.)
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// `size` contiguous elements that somebody else owns.
template <class T> struct slice {
  T* data = nullptr;
  std::int64_t size = 0;

  constexpr T& operator[](std::int64_t i) const { return data[i]; }
  constexpr T* begin() const { return data; }
  constexpr T* end() const { return data + size; }
  constexpr bool empty() const { return size == 0; }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
