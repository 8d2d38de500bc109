// SPDX-License-Identifier: Apache-2.0
// Bytes to decisions, laws that abort, and counts of what was done.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace fuzz {

/// Decisions from the bytes of an input; behind its end they go on by a hash of the whole. Of an input below 32 bytes
/// only the hash counts: it is a seed, and can be written as a number.
class input {
 public:
  input(std::uint8_t const* data, std::size_t size) : data_(data), size_(size) {
    for (std::size_t i = 0; i < size; ++i) state_ = (state_ ^ data[i]) * 0x100000001b3u;
    if (size < 32) at_ = size;
  }

  std::uint64_t bits() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// In [0, count); a decision, so from the input while there is one.
  template <class T> T below(T count) {
    std::uint64_t const x = at_ < size_ ? data_[at_++] : bits() >> 8;
    return static_cast<T>(x % static_cast<std::uint64_t>(count));
  }
  template <class T> T between(T low, T high) { return static_cast<T>(low + below(high - low + 1)); }
  bool one_in(int n) { return below(n) == 0; }
  template <class T, std::size_t N> T pick(T const (&of)[N]) { return of[below(N)]; }
  template <class T, std::size_t N> T* pick(T* const (&of)[N]) { return of[below(N)]; }
  template <class T> T& pick(std::vector<T>& of) { return of[below(of.size())]; }
  /// In (−2, 2), more often small; content, so never from the input.
  float number() {
    auto const part = [&] { return static_cast<float>(static_cast<std::int32_t>(bits() >> 40)) * 0x1p-24f; };
    return part() + part() - part() - part();
  }
  template <class T> void shuffle(std::vector<T>& all, std::size_t from = 0) {
    for (std::size_t i = all.size(); i > from + 1; --i) std::swap(all[i - 1], all[from + bits() % (i - from)]);
  }

 private:
  std::uint8_t const* data_;
  std::size_t size_, at_ = 0;
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

/// What the runs so far have done.
struct counts {
  std::int64_t runs = 0, plans = 0, cut = 0, moved = 0, steps = 0, broken = 0, refused = 0;
  std::int64_t relocated = 0, dropped = 0, rewritten = 0, masked = 0, turned = 0, of_codes = 0, of_forks = 0,
               of_tables = 0;
  std::map<std::string, std::int64_t> refusals;  // of sound input, by message without numbers
};
inline counts& done() {
  static counts all;
  return all;
}

/// A law of the library: a run that breaks it ends the program.
inline void law(bool holds, char const* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: law broken: %s\n", what);
  std::abort();
}

/// A message without its numbers.
inline std::string kind_of(std::string const& message) {
  std::string out;
  for (char const c : message) {
    bool const digit = (c >= '0' && c <= '9') || (c == '-' && !out.empty() && out.back() == ' ');
    if (!digit)
      out += c;
    else if (out.empty() || out.back() != '#')
      out += '#';
  }
  return out.substr(0, 100);
}

}  // namespace fuzz
