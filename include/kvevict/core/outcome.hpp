// SPDX-License-Identifier: Apache-2.0
// What became of one sequence in a call that does not refuse all sequences for the fault of one.
#pragma once

#include <cstdint>
#include <string>

#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Nothing, or the fault for which the sequence was left as it is; the words and fields of contract_violation.
struct outcome {
  std::int32_t layer = -1, sequence = -1, head = -1, token = -1;
  std::string message;

  bool sound() const { return message.empty(); }
  static outcome of(contract_violation const& fault) {
    return {fault.layer, fault.sequence, fault.head, fault.token, fault.what()};
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
