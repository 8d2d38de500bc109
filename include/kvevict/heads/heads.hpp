// SPDX-License-Identifier: Apache-2.0
// The heads stage: how a layer's budget is divided among the KV heads of a sequence.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/stage.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// Every head keeps the same number of tokens.
struct uniform {
  using stage = stages::heads;
  static constexpr bool equal_counts = true;
  template <class Context> void operator()(Context&, score_rows&) const {}
};

}  // namespace heads

}  // namespace KVEVICT_ABI
}  // namespace kvevict
