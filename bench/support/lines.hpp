// SPDX-License-Identifier: Apache-2.0
// Memory as engines have it: it begins with a cache line, where std::vector's begins 16 bytes behind one.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace bench {

template <class T> struct whole_lines {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  whole_lines() = default;
  template <class U> whole_lines(whole_lines<U> const&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, line); }
  bool operator==(whole_lines const&) const { return true; }
};
template <class T> using lines_of = std::vector<T, whole_lines<T>>;

}  // namespace bench
