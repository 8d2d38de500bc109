// SPDX-License-Identifier: Apache-2.0
// Counts every allocation of the program, on all threads, and makes one of them fail.
//
//   auto const before = allocations(); …; CHECK(allocations() == before);
//   { failing_allocation const third(2); …; }  // the third one throws std::bad_alloc
#pragma once

#include <cstdint>

/// Calls of operator new so far. Naming it links the counting operators in.
std::int64_t allocations();
/// Those that have not been given back: as many before a call as after it, or the call leaks.
std::int64_t live_allocations();

/// While it lives: the allocation that `n` others precede fails, and those after it succeed. One at a time.
class failing_allocation {
 public:
  explicit failing_allocation(std::int64_t n);
  failing_allocation(failing_allocation const&) = delete;
  failing_allocation& operator=(failing_allocation const&) = delete;
  ~failing_allocation();

  /// The allocation has been asked for.
  [[nodiscard]] bool happened() const;
};
