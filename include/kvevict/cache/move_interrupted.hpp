// SPDX-License-Identifier: Apache-2.0
// The one failure that may come after a cache has begun to move.
#pragma once

#include <exception>

#include <kvevict/cache/move_plan.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Raised by `compact` and `apply` on the host when the executor gave up tasks that had begun: some rows have moved,
/// others not, one perhaps in part. The tokens of every row with moves in `plan` are lost: drop those sequences, and
/// free all their pages; the rows without moves have what they had. An executor that ends its tasks (core/host.hpp)
/// never causes it: then either nothing has moved, or all has.
struct move_interrupted : std::exception {
  move_plan plan;            // what was to be done
  std::exception_ptr cause;  // what the executor has thrown

  explicit move_interrupted(std::exception_ptr why) noexcept : cause(static_cast<std::exception_ptr&&>(why)) {}
  char const* what() const noexcept override {
    return "compact: the executor gave up while rows moved; drop the sequences that have moves in "
           "move_interrupted::plan, and give an executor that ends the tasks it has begun";
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
