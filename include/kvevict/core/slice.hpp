// SPDX-License-Identifier: Apache-2.0
// Contiguous and ragged views: a pointer with its extent. (std::span is C++20; engines still build as C++17.)
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

/// Rows of different lengths, one behind the other: row r is values[begin[r], begin[r+1]).
template <class T> struct ragged {
  T* values = nullptr;                  // (Σ lengths)
  std::int64_t const* begin = nullptr;  // (rows + 1)
  std::int64_t rows = 0;

  constexpr slice<T> operator[](std::int64_t r) const { return {values + begin[r], begin[r + 1] - begin[r]}; }
  constexpr std::int64_t total() const { return rows == 0 ? 0 : begin[rows] - begin[0]; }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
