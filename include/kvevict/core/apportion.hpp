// SPDX-License-Identifier: Apache-2.0
// Exact division of a whole into integers: the one rounding that heads and layers share.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// `exact`: largest remainder, the sum is what was asked for. `authors`: the published code's own rounding, for parity
/// only.
enum class rounding : std::uint8_t { exact, authors };

/// A share of a table: what others measured, of which only ratios count.
inline constexpr std::int32_t most_share = 1000000;

namespace apportioning {

/// Where the first ones in the order (remainder descending, index ascending) end.
struct last_of {
  std::uint64_t remainder = ~std::uint64_t{0};
  std::int64_t index = -1;

  constexpr bool reaches(std::uint64_t r, std::int64_t i) const {
    return r > remainder || (r == remainder && i <= index);
  }
};

/// The last of the first `count` among those of [0, n) that are `in`; remainders are below `denominator`. There are as
/// many. O(n log denominator), no memory.
template <class Remainder, class In>
constexpr last_of end_of_first(std::int64_t count, std::int64_t n, std::uint64_t denominator,
                               Remainder const& remainder, In const& in) {
  if (count <= 0) return {};
  std::uint64_t low = 0, high = denominator - 1;
  while (low < high) {
    std::uint64_t const middle = low + (high - low + 1) / 2;
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < n; ++i) found += in(i) && remainder(i) >= middle;
    if (found >= count)
      low = middle;
    else
      high = middle - 1;
  }
  for (std::int64_t i = 0; i < n; ++i) count -= in(i) && remainder(i) > low;
  std::int64_t index = -1;
  while (count > 0) ++index, count -= in(index) && remainder(index) == low;
  return {low, index};
}

}  // namespace apportioning

/// numerator(i) of part i over one denominator, rounded by largest remainder (ties: lower index), without memory.
/// Σ share(i) over [0, n) is `total` = Σ numerator(i) / denominator, which must be whole. O(n log denominator) once,
/// then O(1) a part.
template <class Numerator> struct rounded_parts {
  Numerator numerator{};
  std::int64_t denominator = 1;
  apportioning::last_of one_more{};

  constexpr rounded_parts() = default;
  constexpr rounded_parts(Numerator const& of, std::int64_t over, std::int64_t n, std::int64_t total)
      : numerator(of), denominator(over) {
    for (std::int64_t i = 0; i < n; ++i) total -= numerator(i) / denominator;
    one_more = apportioning::end_of_first(
        total, n, static_cast<std::uint64_t>(denominator), [&](std::int64_t i) { return remainder(i); },
        [](std::int64_t) { return true; });
  }
  constexpr std::uint64_t remainder(std::int64_t i) const {
    return static_cast<std::uint64_t>(numerator(i) % denominator);
  }
  constexpr std::int64_t share(std::int64_t i) const {
    return numerator(i) / denominator + (one_more.reaches(remainder(i), i) ? 1 : 0);
  }
};

/// Shares that are rounded already, settled without memory: each is cut to what its part holds, and what was cut goes,
/// one at a time in the order of their remainders, round and round, to the parts that still have room.
///
///   kept(i) = min(share(i) + rounds, held(i)), and one more for the first parts with room, until Σ kept = total
///
/// Σ share ≤ total ≤ Σ held. Parts: count(), denominator() of their remainders, share(i), remainder(i), held(i).
/// O(n log total) once, then O(1) a part.
template <class Parts> class settled {
 public:
  constexpr settled() = default;
  constexpr settled(Parts const& parts, std::int64_t total) : parts_(parts) {
    std::int64_t most = total - kept_after(0);
    if (most == 0) return;
    for (std::int64_t least = 0; least < most;) {
      std::int64_t const middle = least + (most - least + 1) / 2;
      if (kept_after(middle) <= total)
        least = rounds_ = middle;
      else
        most = middle - 1;
    }
    last_ = apportioning::end_of_first(
        total - kept_after(rounds_), parts_.count(), parts_.denominator(),
        [&](std::int64_t i) { return parts_.remainder(i); }, [&](std::int64_t i) { return has_room(i); });
  }

  constexpr std::int64_t kept(std::int64_t i) const {
    std::int64_t const whole = after(i, rounds_);
    return last_.index >= 0 && has_room(i) && last_.reaches(parts_.remainder(i), i) ? whole + 1 : whole;
  }
  constexpr Parts const& parts() const { return parts_; }

 private:
  constexpr std::int64_t after(std::int64_t i, std::int64_t rounds) const {
    return std::min(parts_.share(i) + rounds, parts_.held(i));
  }
  constexpr bool has_room(std::int64_t i) const { return parts_.share(i) + rounds_ < parts_.held(i); }
  constexpr std::int64_t kept_after(std::int64_t rounds) const {
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < parts_.count(); ++i) sum += after(i, rounds);
    return sum;
  }

  Parts parts_{};
  std::int64_t rounds_ = 0;
  apportioning::last_of last_{};
};

/// Parts in arrays.
struct listed_parts {
  static constexpr std::int64_t integers = 3;  // of each: floor, remainder, cap

  std::int64_t const *floors = nullptr, *remainders = nullptr, *caps = nullptr;  // (n) each
  std::int64_t n = 0, denominator_of = 1;
  apportioning::last_of one_more{};

  /// Σ numerators = total · denominator; a part that takes none has 0 everywhere.
  constexpr listed_parts() = default;
  constexpr listed_parts(std::int64_t const* floor, std::int64_t const* rest, std::int64_t const* cap,
                         std::int64_t count, std::int64_t denominator, std::int64_t total)
      : floors(floor), remainders(rest), caps(cap), n(count), denominator_of(denominator) {
    for (std::int64_t i = 0; i < n; ++i) total -= floors[i];
    one_more = apportioning::end_of_first(
        total, n, this->denominator(), [&](std::int64_t i) { return remainder(i); }, [](std::int64_t) { return true; });
  }
  constexpr std::int64_t count() const { return n; }
  constexpr std::uint64_t denominator() const { return static_cast<std::uint64_t>(denominator_of); }
  constexpr std::uint64_t remainder(std::int64_t i) const { return static_cast<std::uint64_t>(remainders[i]); }
  constexpr std::int64_t share(std::int64_t i) const { return floors[i] + (one_more.reaches(remainder(i), i) ? 1 : 0); }
  constexpr std::int64_t held(std::int64_t i) const { return caps[i]; }
};

/// `total` divided by numerators over one denominator, rounded by largest remainder (ties: lower index) and settled.
///
///   share(i) = ⌊numerator(i)/denominator⌋, and one more for the largest remainders, until Σ share = total
///
/// Σ numerator = total·denominator and Σ held ≥ total. Of each part, in order, numerator(i) is asked once and then
/// held(i); 0 in both takes nothing. `integers`: listed_parts::integers of each of n parts. O(n log total), then O(1) a
/// part.
template <class Numerator, class Held>
constexpr settled<listed_parts> divided(std::int64_t total, std::int64_t denominator, std::int64_t n,
                                        std::int64_t* integers, Numerator const& numerator, Held const& held) {
  std::int64_t *const floors = integers, *const remainders = floors + n, *const caps = remainders + n;
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t const x = numerator(i);
    floors[i] = x / denominator, remainders[i] = x % denominator, caps[i] = held(i);
  }
  return settled<listed_parts>({floors, remainders, caps, n, denominator, total}, total);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
