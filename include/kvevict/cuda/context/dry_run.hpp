// SPDX-License-Identifier: Apache-2.0
// A call that is tried out: what it would do, and the keep sets that it would have made.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// What a verb would do on a device: its scratch, and what it puts into the stream, in order.
struct dry_run {
  enum class kind : std::uint8_t { launch, copy, fill };
  struct step {
    kind what;
    char const* name;  // of a kernel the compiler's text, which names it; else of what is copied or filled
    extent grid, block;
    std::size_t bytes;  // copied or filled; of a kernel its shared memory
  };
  std::size_t scratch_bytes = 0;
  std::vector<step> steps;

  std::size_t count(kind k) const {
    return static_cast<std::size_t>(
        std::count_if(steps.begin(), steps.end(), [k](step const& s) { return s.what == k; }));
  }
};

/// A rectangle of kept tokens in device memory, as kernels see it: row r = b·heads + h is tokens[r·stride, r·stride +
/// counts[r]).
struct keep_arrays {
  std::int32_t sequences = 0, heads = 0;
  std::int64_t stride = 0;
  std::int32_t* tokens = nullptr;   // (B·H, stride) device memory
  std::int32_t* counts = nullptr;   // (B·H)
  std::int32_t* lengths = nullptr;  // (B·H) physical length of each row when it was planned

  std::int64_t rows() const { return std::int64_t{sequences} * heads; }
};

/// What keep sets are in a dry run, which does not write them: as its own calls would have left them.
class dry_keep_sets {
 public:
  keep_arrays const& operator()(keep_arrays const& real) const {
    for (auto const& [which, rows] : all_)
      if (which == &real) return rows;
    return real;
  }
  void set(keep_arrays const& real, keep_arrays const& rows) {
    for (auto& [which, known] : all_)
      if (which == &real) {
        known = rows;
        return;
      }
    all_.emplace_back(&real, rows);
  }

 private:
  std::vector<std::pair<keep_arrays const*, keep_arrays>> all_;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
