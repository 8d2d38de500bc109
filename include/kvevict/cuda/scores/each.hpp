// SPDX-License-Identifier: Apache-2.0
// Kernels that call one function per token or per sequence, and the one read of scores by the host.
#pragma once

#include <vector>

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::each_token_tag, device&);
void has_kernel(kernels::each_row_tag, device&);
void has_kernel(kernels::each_sequence_tag, device&);
void has_kernel(kernels::read_scores_tag, device&);
void has_kernel(kernels::few_rows_tag, device&);

/// Shapes   scores (B·H, N) → scores (B·H, N).
template <class F> struct each_token_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows out;
  F f;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, out, chunks, r);
    if (j >= 0) f(out.rows[r], j, out.values[out.begin[r] + j]);
  }
};

/// Shapes   rows (B·H) → nothing of its own.
template <class F> struct each_row_kernel {
  static constexpr int max_threads = 32;
  watched watch;
  score_rows of;
  F f;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (r < of.count() && !watch.stopped(t) && of.rows[r].active) f(static_cast<row const&>(of.rows[r]), r);
  }
};

/// Shapes   rows (B·H) → rows (B·H).
template <class F> struct each_sequence_kernel {
  static constexpr int max_threads = 32;
  watched watch;
  score_rows rows;
  F f;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const b = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (b < rows.sequences && !watch.stopped(t)) f(slice<row>{rows.rows + b * rows.heads, rows.heads}, b);
  }
};

/// f(row, token, score&) for all tokens of the active rows. One launch.
template <class F> void kernel(kernels::each_token_tag, device& ctx, score_rows const& out, F const& f) {
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             each_token_kernel<F>{ctx.watch(), out, f, chunks});
}

/// f(row, r) for the active rows, a thread each: for what is left of a reduction. One launch.
template <class F> void kernel(kernels::each_row_tag, device& ctx, score_rows const& of, F const& f) {
  ctx.launch({blocks_for(of.count(), 32)}, {32}, 0, each_row_kernel<F>{ctx.watch(), of, f});
}

/// f(rows of the heads, sequence) for every sequence, a thread each. One launch.
template <class F> void kernel(kernels::each_sequence_tag, device& ctx, score_rows const& rows, F const& f) {
  ctx.launch({blocks_for(rows.sequences, 32)}, {32}, 0, each_sequence_kernel<F>{ctx.watch(), rows, f});
}

/// All at once: a device works on all rows side by side.
template <class F> void kernel(kernels::few_rows_tag, device&, score_rows const& of, std::int64_t, F const& f) {
  f(of);
}

/// For inspection: waits, and raises what was found wrong.
inline void kernel(kernels::read_scores_tag, device& ctx, score_rows const& from, std::vector<float>& values) {
  ctx.expect_no_dry_run("scores");
  auto const rows = static_cast<std::size_t>(from.count()), stride = static_cast<std::size_t>(stride_of(from));
  std::vector<row> descriptions(rows);
  std::vector<float> all(rows * stride);
  if (rows != 0) copy_to_host(ctx.queue(), descriptions.data(), from.rows, rows * sizeof(row));
  if (!all.empty()) copy_to_host(ctx.queue(), all.data(), from.values, all.size() * sizeof(float));
  ctx.finish();
  values.clear();
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t j = 0; j < static_cast<std::size_t>(descriptions[r].tokens); ++j)
      values.push_back(descriptions[r].active ? all[r * stride + j] : 0.0f);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
