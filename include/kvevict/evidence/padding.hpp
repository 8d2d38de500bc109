// SPDX-License-Identifier: Apache-2.0
// Slots that hold no token, in scores.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A score that sums, or compares, keys or values of all tokens of a row would take padding for tokens. Attention pays
/// padding nothing, and what a score says of a padded slot alone is not read.
template <class Evidence> void expect_no_padding(char const* score, Evidence const& e) {
  KVEVICT_EXPECTS(e.sees.first_token == nullptr, score,
                  ": it reads all slots of a row together, and those before visibility::first_token are padding; give "
                  "a view whose rows begin with a token, or a policy that goes by attention alone");
}

struct write_padding {
  visibility sees;
  float x;

  constexpr void operator()(row const& in, std::int64_t j, float& score) const {
    if (j < sees.padding(in.sequence)) score = x;
  }
};
/// Padding's scores become x, whatever a score has made of what lies there.
template <class Context, class Evidence>
void set_padding(Context& ctx, Evidence const& e, score_rows const& rows, float x) {
  if (e.sees.first_token != nullptr) kernels::each_token(ctx, rows, write_padding{e.sees, x});
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
