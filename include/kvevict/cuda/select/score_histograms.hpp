// SPDX-License-Identifier: Apache-2.0
// How the scores of each row are distributed, on a device.
#pragma once

#include <kvevict/core/score_histogram.hpp>
#include <kvevict/cuda/select/pooled_histograms.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::score_histograms_tag, device&);

/// The host's (kernels/score_histograms.hpp), but that the lowest bucket, below all finite scores, holds what is read
/// beside evictable tokens, too. A fill and a launch.
inline void kernel(kernels::score_histograms_tag, device& ctx, score_rows const& s, std::uint32_t* histograms) {
  if (s.count() == 0) return;
  static_assert(score_histogram::buckets == radix::buckets && score_histogram::bucket_of(~0u) == radix::buckets - 1);
  pooled::work const w{ctx.watch(), s,       {},      histograms,
                       nullptr,     nullptr, nullptr, blocks_for(s.most_tokens, pooled::chunk)};
  ctx.zero("histograms", histograms, static_cast<std::size_t>(s.count()) * radix::buckets * sizeof *histograms);
  std::uint32_t const rows = static_cast<std::uint32_t>(s.count()), threads = threads_for(s.most_tokens, 4);
  if (s.positions != nullptr)
    return ctx.launch({rows * w.chunks}, {std::min(256u, threads)}, 0,
                      pooled::histogram_kernel<scattered_keys>{w, 0, false});
  expect_vectors(s);
  ctx.launch({rows * w.chunks}, {std::min(256u, threads)}, 0,
             pooled::histogram_kernel<ordered_keys<false>>{w, 0, false});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
