// SPDX-License-Identifier: Apache-2.0
// Arrays of the caller begin at a whole element.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/dtype.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A device reads an element by one load; at an address between two elements that load fails, and with it everything
/// that the process has on the device.
inline void expect_aligned(char const* verb, char const* what, void const* p, dtype type) {
  KVEVICT_EXPECTS(reinterpret_cast<std::uintptr_t>(p) % static_cast<std::uintptr_t>(size_of(type)) == 0, verb, ": ",
                  what, " begin at an address that is no multiple of the ", size_of(type), " bytes of ", name_of(type),
                  "; give the address of an element, offsets count in elements");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
