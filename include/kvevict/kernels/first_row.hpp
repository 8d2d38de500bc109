// SPDX-License-Identifier: Apache-2.0
// The first row in which workers find something, whichever of them comes first.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// The least of the rows that were added, by any number of threads.
class first_row {
 public:
  void add(std::int64_t r) {
    std::int64_t before = first_.load(std::memory_order_relaxed);
    while (r < before && !first_.compare_exchange_weak(before, r, std::memory_order_relaxed)) {
    }
  }
  bool found() const { return get() != none; }
  std::int64_t get() const { return first_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> first_{none};
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
