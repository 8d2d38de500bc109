// SPDX-License-Identifier: Apache-2.0
// A score that is not a number never evicts silently.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <kvevict/core/dtype.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(require_finite_tag, host&);

/// Scratch that `require_finite` takes for that many rows.
constexpr std::int64_t require_finite_bytes(std::int64_t rows) { return (rows * 4 + 63) / 64 * 64; }

inline bool is_finite(float x) { return (bits::as_uint(x) & 0x7fffffffu) < 0x7f800000u; }

/// Whether all of n floats are finite, eight at a time.
inline bool are_finite(float const* x, std::int64_t n) {
  constexpr int wide = 8;
  using numbers __attribute__((vector_size(wide * 4))) = std::int32_t;
  numbers wrong;
  std::memset(&wrong, 0, sizeof wrong);  // nvcc 13.0 stops at {} for some vectors
  std::int32_t some = 0;
  for (; n >= wide; n -= wide, x += wide) {
    numbers bits;
    std::memcpy(&bits, x, sizeof bits);
    wrong |= (bits & 0x7fffffff) >= 0x7f800000;
  }
  for (int i = 0; i < wide; ++i) some |= wrong[i];
  for (; n > 0; --n, ++x) some |= is_finite(*x) ? 0 : 1;
  return some == 0;
}

/// Whether all evictable tokens of row r have finite scores.
inline bool has_finite_scores(score_rows const& s, std::int64_t r) {
  row const it = s.rows[r];
  float const* const x = s.values + s.begin[r];
  if (s.positions == nullptr) return are_finite(x + it.first, it.last - it.first);
  std::int32_t const* const p = s.positions + s.begin[r];
  std::int32_t wrong = 0;
  for (std::int32_t j = 0; j < it.tokens; ++j) wrong |= int{p[j] >= it.first} & int{p[j] < it.last} & !is_finite(x[j]);
  return wrong == 0;
}

/// The first evictable token of row r whose score is not finite, or −1.
inline std::int32_t first_non_finite(score_rows const& s, std::int64_t r) {
  if (has_finite_scores(s, r)) return -1;
  row const& it = s.rows[r];
  float const* const x = s.values + s.begin[r];
  for (std::int32_t j = 0; j < it.tokens; ++j)
    if (s.evictable(r, j) && !is_finite(x[j])) return j;
  return -1;
}

[[noreturn]] inline void refuse_score(score_rows const& s, std::int64_t r, std::int32_t token) {
  row const& it = s.rows[r];
  messages::not_finite(s.verb(), token, it.sequence, it.head, s.layer_of(it.sequence), s.values[s.begin[r] + token]);
}

/// Raises when an evictable token of an active row has a score that is NaN, +inf or −inf; names the first.
inline void kernel(require_finite_tag, host& ctx, score_rows const& s) {
  frame scratch(ctx.scratch());
  auto* const bad = scratch.allocate<std::int32_t>(s.count());  // (B·H) token, or −1
  ctx.for_each(
      s.count(), [&](std::int64_t r, std::int32_t) { bad[r] = s.rows[r].active ? first_non_finite(s, r) : -1; },
      s.begin[s.count()] / 8);
  for (std::int64_t r = 0; r < s.count(); ++r)
    if (bad[r] >= 0) refuse_score(s, r, bad[r]);
}

/// The same of several planes: of a sequence's rows with fewer rows of attention than planes its first ones.
template <class Rows>
void require_finite_planes(host& ctx, score_rows const& s, Rows const& given, std::int32_t planes) {
  frame scratch(ctx.scratch());
  auto* const bad = scratch.allocate<std::int32_t>(s.count());  // (B·H) token, or −1
  auto const first_plane = [&](std::int64_t r, std::int32_t wanted) {
    for (std::int32_t w = 0, n = std::min(planes, given.rows(s.rows[r].sequence)); w < n; ++w)
      if (std::int32_t const j = first_non_finite(s.plane(w), r); j >= 0 && (wanted < 0 || j == wanted)) return w;
    return std::int32_t{-1};
  };
  auto const look = [&](std::int64_t r, std::int32_t) {
    bad[r] = -1;
    for (std::int32_t w = 0, n = std::min(planes, given.rows(s.rows[r].sequence)); s.rows[r].active && w < n; ++w)
      if (std::int32_t const j = first_non_finite(s.plane(w), r); j >= 0 && (bad[r] < 0 || j < bad[r])) bad[r] = j;
  };
  ctx.for_each(s.count(), look, s.begin[s.count()] / 8 * planes);
  for (std::int64_t r = 0; r < s.count(); ++r)
    if (bad[r] >= 0) refuse_score(s.plane(first_plane(r, bad[r])), r, bad[r]);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
