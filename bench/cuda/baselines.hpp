// SPDX-License-Identifier: Apache-2.0
// What a GPU would do without the library: sort every row with CUB to find its best, and copy what stays into new
// tensors.
#pragma once

#include <cub/device/device_segmented_sort.cuh>

#include "cuda/shapes.hpp"

namespace bench {

/// The whole sort of (rows, n) scores with their indices, descending: what a top-k made of library calls costs. Returns
/// its scratch bytes when `scratch` is null.
inline std::size_t cub_sort(cuda::stream s, void* scratch, std::size_t bytes, float const* scores, float* sorted,
                            std::int32_t const* indices, std::int32_t* order, int n, int rows,
                            std::int32_t const* offsets) {
  cub::DeviceSegmentedSort::SortPairsDescending(scratch, bytes, scores, sorted, indices, order, n * rows, rows, offsets,
                                                offsets + 1, s.handle());
  return bytes;
}

/// Row i of `to` is row index[i] of `from`, 16 bytes a thread: torch.gather of one head, torch.cat without index.
struct gather_kernel {
  static constexpr int max_threads = 256;
  cuda::vec128 const* from;
  std::int32_t const* index;  // or null: the rows as they are
  cuda::vec128* to;
  std::int64_t rows;
  std::int32_t width;  // 16-byte units
  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * 256 + t.linear_index(), i = at / width;
    if (i < rows) to[at] = from[(index == nullptr ? i : index[i]) * width + at % width];
  }
};

/// As the authors of Ada-KV compact one tensor of one layer, (H, N, D) contiguous: every head is gathered by itself,
/// then all are put one behind the other.
inline void flatten_copy(cuda::stream s, std::byte const* from, std::byte* gathered, std::byte* flat,
                         cuda::keep_set const& keep, std::int64_t first_row, std::int32_t heads, std::int32_t tokens,
                         std::int32_t kept, std::int32_t row_bytes) {
  auto const launch = [&](std::byte const* source, std::int32_t const* index, std::byte* to) {
    std::int32_t const width = row_bytes / 16;
    auto const blocks = static_cast<std::uint32_t>((std::int64_t{kept} * width + 255) / 256);
    cuda::launch(s, {blocks}, {256}, 0,
                 gather_kernel{reinterpret_cast<cuda::vec128 const*>(source), index,
                               reinterpret_cast<cuda::vec128*>(to), kept, width});
  };
  for (std::int64_t h = 0; h < heads; ++h)
    launch(from + h * tokens * row_bytes, keep.tokens + (first_row + h) * keep.stride, gathered + h * kept * row_bytes);
  for (std::int64_t h = 0; h < heads; ++h)
    launch(gathered + h * kept * row_bytes, nullptr, flat + h * kept * row_bytes);
}

}  // namespace bench
