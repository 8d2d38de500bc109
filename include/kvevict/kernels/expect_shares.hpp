// SPDX-License-Identifier: Apache-2.0
// A table of shares is counts, before it divides a budget.
#pragma once

#include <cstdint>

#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(expect_shares_tag, host&);

/// Raises where one of n shares is not 0 to most_share; names the first.
inline void kernel(expect_shares_tag, host&, char const* stage, std::int32_t const* shares, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i)
    if (shares[i] < 0 || shares[i] > most_share) messages::share(stage, i, shares[i]);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
