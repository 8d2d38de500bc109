// SPDX-License-Identifier: Apache-2.0
// Errors of launches, device memory and streams.
#pragma once

#include <stdexcept>
#include <string>

#include <kvevict/core/contract.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// What the device or its runtime refused; `what()` reads "call: what is wrong; what to do".
struct cuda_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void raise(std::string const& message) {
#if KVEVICT_EXCEPTIONS
  throw cuda_error(message);
#else
  current_contract_handler()(message.c_str());
  std::abort();
#endif
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
