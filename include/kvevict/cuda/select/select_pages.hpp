// SPDX-License-Identifier: Apache-2.0
// Rows of pages on a device, and the tokens of those that stay.
#pragma once

#include <kvevict/cuda/select/select_best.hpp>
#include <kvevict/kernels/pages.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::page_rows_tag, device&);
void has_kernel(kernels::select_pages_tag, device&);

/// One thread per row.
///
/// Shapes   rows of tokens (B·H) → rows of pages (B·H), begin (B·H+1).
struct page_rows_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  score_rows out;
  row* rows;
  std::int64_t* begin;
  std::int64_t stride;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (r >= out.count() || watch.stopped(t)) return;
    rows[r] = kvevict::pages::row_of(out.of_tokens[r], out.page_size);
    begin[r] = r * stride;
    if (r + 1 == out.count()) begin[r + 1] = (r + 1) * stride;
  }
};

inline score_rows kernel(kernels::page_rows_tag, device& ctx, frame& scratch, score_rows const& tokens,
                         std::int32_t page) {
  score_rows out = tokens;
  std::int64_t const n = tokens.count(), stride = (tokens.most_tokens / page + 3) / 4 * 4;
  auto* const begin = scratch.allocate<std::int64_t>(n + 1);
  out.rows = scratch.allocate<row>(n), out.begin = begin, out.of_tokens = tokens.rows, out.page_size = page;
  out.most_tokens = tokens.most_tokens / page, out.total_floats = n * stride;
  out.values = scratch.allocate<float>(out.total_floats);
  ctx.launch({blocks_for(n, 128)}, {128}, 0, page_rows_kernel{ctx.watch(), out, out.rows, begin, stride});
  return out;
}

/// Pages become their tokens, and the part-filled last one is added. One block per row.
///
/// Shapes   pages (B·H, stride), counts (B·H) → tokens (B·H, stride), counts, lengths (B·H).
struct spread_pages_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows s;
  keep_arrays pages, to;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x;
    std::int32_t const n = s.of_tokens[r].tokens, page = s.page_size, kept = pages.counts[r] * page,
                       count = kept + n % page;
    std::int32_t const* const from = pages.tokens + r * pages.stride;
    std::int32_t* const out = to.tokens + r * to.stride;
    for (auto i = static_cast<std::int32_t>(t.linear_index()); i < count;
         i += static_cast<std::int32_t>(t.block_size().x))
      out[i] = i < kept ? from[i / page] * page + i % page : n - count + i;
    if (t.linear_index() == 0) to.counts[r] = count, to.lengths[r] = n;
  }
};

/// The host's (kernels/select_pages.hpp).
///
/// Cost     select_best's of N/P tokens, a launch that writes what stays; scratch 4 bytes a page.
inline void kernel(kernels::select_pages_tag, device& ctx, score_rows const& s, keep_set& out) {
  keep_arrays const to = out.resize(ctx, s.sequences, s.heads, s.most_tokens * s.page_size);
  frame scratch(ctx.scratch());
  keep_arrays pages{s.sequences, s.heads, (s.most_tokens + 3) / 4 * 4};
  pages.tokens = scratch.allocate<std::int32_t>(s.count() * pages.stride);
  pages.counts = scratch.allocate<std::int32_t>(s.count()), pages.lengths = scratch.allocate<std::int32_t>(s.count());
  select_rows(ctx, s, pages);
  ctx.launch({static_cast<std::uint32_t>(s.count())}, {std::min(256u, threads_for(s.most_tokens * s.page_size, 4))}, 0,
             spread_pages_kernel{ctx.watch(), s, pages, to});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
