// SPDX-License-Identifier: Apache-2.0
// What is said of what rows of evidence see, in every context: each text stands here, once.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/visibility.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

[[noreturn]] inline void padding(std::int32_t sequence, std::int32_t head, std::int64_t first, std::int64_t tokens,
                                 bool scattered) {
  contract::violate(
      "evidence: first_token of ", of_sequence(sequence), " is ", first, ", and ", row(sequence, head), " holds ",
      tokens, scattered ? " scattered" : "",
      " tokens; visibility::first_token is the slot of ascending rows behind their padding, from 0 to the "
      "row's length");
}
/// Row `row_of` of the sequence's, at that position, cannot be told what it sees.
[[noreturn]] inline void row_sight(sight_fault why, std::int32_t sequence, std::int32_t head, std::int64_t row_of,
                                   std::int64_t position) {
  char const* const text =
      why == sight_fault::negative     ? ", which no token has; give each row its token's logical position"
      : why == sight_fault::descending ? ", before the row above it; give a sequence's rows in order of position"
      : why == sight_fault::before_its_token
          ? ", before the slot of its token, so that the cache holds tokens behind it (drafts, padding); write each "
            "token's position into a role::position component, or say where padding ends (visibility::first_token)"
      : why == sight_fault::behind_its_token
          ? ", behind the slot of its token, so that tokens were evicted, and nobody knows which ones it still sees; "
            "write each token's position into a role::position component"
      : why == sight_fault::unknown
          ? " or any other, and sees only some tokens of scattered rows; give the rows their positions"
          : ", behind padding that ends below slot 0 or beyond the row, or in scattered rows, where no slot begins a "
            "sequence; visibility::first_token is a slot of ascending rows";
  contract::violate("evidence: row ", row_of, " of ", row(sequence, head), " is at position ", position, text);
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
