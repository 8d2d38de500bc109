// SPDX-License-Identifier: Apache-2.0
// Slots that hold no token, in scores that read a row as a whole.
#pragma once

#include <kvevict/core/contract.hpp>
#include <kvevict/evidence/evidence.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A score that sums, or compares, keys or values of all tokens of a row would take padding for tokens. Attention pays
/// padding nothing, and what a score says of a padded slot alone is not read.
template <class Evidence> void expect_no_padding(char const* score, Evidence const& e) {
  KVEVICT_EXPECTS(e.sees.first_token == nullptr, score,
                  ": it reads all slots of a row together, and those before visibility::first_token are padding; give "
                  "a view whose rows begin with a token, or a policy that goes by attention alone");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
