// SPDX-License-Identifier: Apache-2.0
// What a plan returns on a device: the tokens that stay, in device memory.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cuda/context/buffer.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/policy.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// Rows of ascending token indices: row r = b·heads + h is tokens[r·stride, r·stride + counts[r]). Owns its memory,
/// which only grows;
/// `plan(…, out)` reuses it. It must go, or be planned into again, on the stream that it was made on.
class keep_set {
 public:
  keep_set() = default;
  keep_set(keep_set&& other) noexcept { swap(other); }
  keep_set& operator=(keep_set&& other) noexcept { return swap(other), *this; }

  std::int32_t sequences = 0, heads = 0;
  std::int64_t stride = 0;
  std::int32_t* tokens = nullptr;   // (B·H, stride) device memory
  std::int32_t* counts = nullptr;   // (B·H)
  std::int32_t* lengths = nullptr;  // (B·H) physical length of each row when it was planned

  std::int64_t rows() const { return std::int64_t{sequences} * heads; }

  /// Makes room for rows of up to `most` tokens.
  void resize(device const& ctx, std::int32_t b, std::int32_t h, std::int64_t most) {
    std::int64_t const wide = (most + 3) / 4 * 4;
    if (!ctx.is_dry()) memory_.grow(ctx.queue(), static_cast<std::size_t>(std::int64_t{b} * h * (wide + 2)) * 4);
    sequences = b, heads = h, stride = wide;
    tokens = reinterpret_cast<std::int32_t*>(memory_.data());
    counts = tokens + rows() * stride;
    lengths = counts + rows();
  }

  /// A copy for the host; waits, and raises what kernels have refused.
  kvevict::keep_set read(device& ctx) const {
    kvevict::keep_set out;
    auto const n = static_cast<std::size_t>(rows()), wide = static_cast<std::size_t>(stride);
    std::vector<std::int32_t> all(n * (wide + 2));
    if (n != 0) copy_to_host(ctx.queue(), all.data(), tokens, all.size() * 4);
    ctx.wait();
    out.sequences = sequences, out.heads = heads;
    out.row_begin.assign(1, 0);
    for (std::size_t r = 0; r < n; ++r) {
      auto const row = all.begin() + static_cast<std::ptrdiff_t>(r * wide);
      out.tokens.insert(out.tokens.end(), row, row + all[n * wide + r]);
      out.row_begin.push_back(out.kept());
      out.lengths.push_back(all[n * (wide + 1) + r]);
    }
    return out;
  }

  /// A keep set that was made elsewhere; `keep` may go when this returns. Whether it fits a cache is seen by the verb
  /// that it is given to.
  ///
  /// Errors   contract_violation if its arrays do not describe each other, or a row has more tokens than its length;
  ///          this one is as it was.
  void assign(device& ctx, kvevict::keep_set const& keep) {
    contract::expect_rows("assign", keep);
    std::int64_t most = 0;
    for (std::int64_t r = 0; r < keep.rows(); ++r) {
      std::int64_t const n = keep.lengths[static_cast<std::size_t>(r)];
      KVEVICT_EXPECTS(keep.row(r).size <= n, "assign: row ", r, " keeps ", keep.row(r).size, " tokens of ", n,
                      "; provide the keep set as plan() made it");
      most = n > most ? n : most;
    }
    resize(ctx, keep.sequences, keep.heads, most);
    auto const n = static_cast<std::size_t>(rows()), wide = static_cast<std::size_t>(stride);
    std::vector<std::int32_t> all(n * (wide + 2));
    for (std::size_t r = 0; r < n; ++r) {
      auto const row = keep.row(static_cast<std::int64_t>(r));
      for (std::int64_t i = 0; i < row.size; ++i) all[r * wide + static_cast<std::size_t>(i)] = row[i];
      all[n * wide + r] = static_cast<std::int32_t>(row.size);
      all[n * (wide + 1) + r] = keep.lengths[r];
    }
    if (n != 0) copy_to_device(ctx.queue(), tokens, all.data(), all.size() * 4);
    ctx.wait();
  }

 private:
  void swap(keep_set& other) noexcept {
    std::swap(sequences, other.sequences), std::swap(heads, other.heads), std::swap(stride, other.stride);
    std::swap(tokens, other.tokens), std::swap(counts, other.counts), std::swap(lengths, other.lengths);
    std::swap(memory_, other.memory_);
  }

  buffer memory_;
};

}  // namespace cuda

template <> struct keep_sets<cuda::device> { using type = cuda::keep_set; };

}  // namespace KVEVICT_ABI
}  // namespace kvevict
