// SPDX-License-Identifier: Apache-2.0
// What is said of rows whose keys are to be turned, in every context: each text stands here, once.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

[[noreturn]] inline void prefix_would_turn(std::int32_t sequence, std::int32_t head, std::int64_t token,
                                           std::int64_t position, std::int64_t becomes) {
  contract::violate(
      contract::at(sequence, head, token), "rerotate: token ", token, " of ", row(sequence, head),
      " lies in the read-only prefix at position ", position, " and would come to ", becomes,
      "; shared pages are not written: begin where the prefix stays as it is, or copy it first; a prefix whose "
      "positions have gaps must be copied");
}
[[noreturn]] inline void positions_cannot_turn(std::int32_t sequence, std::int32_t head) {
  contract::violate(contract::at(sequence, head), "rerotate: the positions of ", row(sequence, head),
                    " are not distinct numbers of 0 or more; write each token's own into the role::position component");
}
[[noreturn]] inline void common_positions_of_other_length(std::int32_t sequence, std::int32_t head, std::int64_t tokens,
                                                          std::int64_t first) {
  contract::violate(contract::at(sequence, head), "rerotate: ", row(sequence, head), " has ", tokens,
                    " tokens and the row that it has its positions in common with ", first,
                    "; give every row its own positions, or keep as many tokens in each");
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
