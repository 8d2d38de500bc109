// SPDX-License-Identifier: Apache-2.0
// Counts every allocation of the program, on all threads.
//
//   auto const before = allocations(); …; CHECK(allocations() == before);
#pragma once

#include <cstdint>

/// Calls of operator new so far. Naming it links the counting operators in.
std::int64_t allocations();
