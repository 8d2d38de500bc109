// SPDX-License-Identifier: Apache-2.0
// A gate's attention on a device, one (token, gate head) per thread. Rows of the memory are taken eight at a time from the first on, whatever
// the chunks, and those that a token does not see weigh 0: so no bit of C depends on what else is computed.
#pragma once

#include <algorithm>

#include <kvevict/cuda/gate_project.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {
namespace gate_softmax {

inline constexpr int each = 8;
inline constexpr float hidden = -3e38f;

/// A streaming softmax: logits in base 2 become weights; returns what earlier weights and sums shrink by.
struct running {
  float peak = -1e30f, total = 0;

  KVEVICT_DEVICE float take(float (&z)[each]) {
    float top = peak;
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) top = z[k] > top ? z[k] : top;
    float const shrink = exp2(peak - top);
    peak = top, total = multiply(total, shrink);
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) z[k] = exp2(z[k] - top), total = add(total, z[k]);
    return shrink;
  }
};

/// What a block works on. Late tokens see the most: they come first.
struct place {
  std::int32_t b, h, first;

  KVEVICT_DEVICE place(thread& t, gate_call const& c) {
    auto const of_head = t.block().x / c.tiles, heads = static_cast<std::uint32_t>(c.w.heads);
    b = static_cast<std::int32_t>(of_head / heads), h = static_cast<std::int32_t>(of_head % heads);
    first = static_cast<std::int32_t>((c.tiles - 1 - t.block().x % c.tiles) * t.block_size().x);
  }
};

}  // namespace gate_softmax

/// Heads up to Width wide: query and sums in registers, 32 rows of the memory at a time through shared memory. Grid: (sequence, head, tokens).
template <int Width> struct gate_attention_kernel {
  static constexpr int max_threads = 64;
  static constexpr int rows = 32, each = gate_softmax::each;
  gate_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, float, tile, rows * 2 * Width);  // K' and V' of a row side by side
    gate_softmax::place const at(t, c);
    std::int32_t const fresh = c.in.rows(at.b), dg = c.w.head_dim, i = at.first + static_cast<std::int32_t>(t.rank());
    if (at.first >= fresh) return;
    bool const causal = c.sees == gate_mask::causal;
    std::int64_t const earlier = c.earlier(at.b), A = c.w.width();
    std::int64_t const end = earlier + (causal ? std::min(at.first + static_cast<std::int32_t>(t.block_size().x), fresh) : fresh);
    std::int64_t const seen = i >= fresh ? 0 : causal ? earlier + i + 1 : end;
    float const* const memory = c.memory(at.b) + at.h * dg;
    float* const own = c.queries + (c.first_row(at.b) + i) * A + at.h * dg;
    float q[Width], sums[Width] = {};
    KVEVICT_UNROLL
    for (int d = 0; d < Width; ++d) q[d] = d < dg && i < fresh ? own[d] : 0;
    gate_softmax::running weights;
    for (std::int64_t first = 0; first < end; first += rows) {
      for (auto k = static_cast<int>(t.rank()); k < rows * 2 * Width; k += static_cast<int>(t.block_size().x)) {
        std::int64_t const j = first + k / (2 * Width);
        int const d = k % Width;
        tile[k] = j < end && d < dg ? memory[j * 2 * A + (k / Width % 2) * A + d] : 0;
      }
      t.sync_block();
      KVEVICT_KEEP_LOOP
      for (int j = 0; j < rows && first + j < seen; j += each) add_rows(t, tile, j, static_cast<int>(std::min<std::int64_t>(seen - first, rows)), q, weights, sums);
      t.sync_block();
    }
    if (i >= fresh) return;
    KVEVICT_UNROLL
    for (int d = 0; d < Width; ++d)
      if (d < dg) own[d] = sums[d] / weights.total;
  }

 private:
  KVEVICT_DEVICE static float part(vec128 const& v, int i) {
    float x;
    memcpy(&x, &v.words[i], sizeof x);
    return x;
  }
  /// Rows j … j + 7 of the tile, of which those before `end` are seen; behind it the last seen one again.
  KVEVICT_DEVICE static void add_rows(thread& t, float const* tile, int j, int end, float const (&q)[Width], gate_softmax::running& weights, float (&sums)[Width]) {
    float z[each];
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) {
      float const* const key = tile + std::min(j + k, end - 1) * 2 * Width;
      z[k] = 0;
      KVEVICT_UNROLL
      for (int d = 0; d < Width; d += 4) {
        vec128 const four = load_vec128(t, key + d);
        KVEVICT_UNROLL
        for (int i = 0; i < 4; ++i) z[k] = fma(q[d + i], part(four, i), z[k]);
      }
      if (j + k >= end) z[k] = gate_softmax::hidden;
    }
    float const shrink = weights.take(z);
    KVEVICT_UNROLL
    for (int d = 0; d < Width; ++d) sums[d] = multiply(sums[d], shrink);
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) {
      float const* const value = tile + (std::min(j + k, end - 1) * 2 + 1) * Width;
      KVEVICT_UNROLL
      for (int d = 0; d < Width; d += 4) {
        vec128 const four = load_vec128(t, value + d);
        KVEVICT_UNROLL
        for (int i = 0; i < 4; ++i) sums[d + i] = fma(z[k], part(four, i), sums[d + i]);
      }
    }
  }
};

/// Heads of any width: query and sums in shared memory, (dg, threads), the memory's rows from where they lie.
struct wide_gate_attention_kernel {
  static constexpr int max_threads = 64, each = gate_softmax::each;
  gate_call c;

  /// As many as fit the shared memory of every device.
  static constexpr std::uint32_t threads(std::int32_t dg) { return static_cast<std::uint32_t>(std::min(max_threads, 96 * 1024 / 8 / dg)); }

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int32_t const dg = c.w.head_dim, threads = static_cast<std::int32_t>(t.block_size().x);
    auto* const q = t.shared<float>(static_cast<std::size_t>(dg) * t.block_size().x) + t.rank();
    auto* const sums = t.shared<float>(static_cast<std::size_t>(dg) * t.block_size().x) + t.rank();
    gate_softmax::place const at(t, c);
    std::int32_t const i = at.first + static_cast<std::int32_t>(t.rank());
    if (i >= c.in.rows(at.b)) return;
    float* const own = c.queries + (c.first_row(at.b) + i) * c.w.width() + at.h * dg;
    for (std::int32_t d = 0; d < dg; ++d) q[d * threads] = own[d], sums[d * threads] = 0;
    std::int64_t const seen = std::int64_t{c.earlier(at.b)} + (c.sees == gate_mask::causal ? i + 1 : c.in.rows(at.b)), A = c.w.width();
    float const* const memory = c.memory(at.b) + at.h * dg;
    gate_softmax::running weights;
    for (std::int64_t j = 0; j < seen; j += each) {
      float z[each] = {};
      for (std::int32_t d = 0; d < dg; ++d)
        for (int k = 0; k < each; ++k) z[k] = fma(q[d * threads], memory[std::min(j + k, seen - 1) * 2 * A + d], z[k]);
      for (int k = 0; k < each; ++k)
        if (j + k >= seen) z[k] = gate_softmax::hidden;
      float const shrink = weights.take(z);
      for (std::int32_t d = 0; d < dg; ++d) {
        float sum = multiply(sums[d * threads], shrink);
        for (int k = 0; k < each; ++k) sum = fma(z[k], memory[std::min(j + k, seen - 1) * 2 * A + A + d], sum);
        sums[d * threads] = sum;
      }
    }
    for (std::int32_t d = 0; d < dg; ++d) own[d] = sums[d * threads] / weights.total;
  }
};

/// Q' → C, in place.
inline void attend(device& ctx, gate_call c) {
  std::int32_t const dg = c.w.head_dim;
  std::uint32_t const threads = dg <= 64 ? 64 : wide_gate_attention_kernel::threads(dg);
  c.tiles = blocks_for(c.in.most_rows, threads);
  extent const grid{static_cast<std::uint32_t>(c.sequences) * static_cast<std::uint32_t>(c.w.heads) * c.tiles};
  if (dg <= 16) ctx.launch(grid, {threads}, 0, gate_attention_kernel<16>{c});
  else if (dg <= 32) ctx.launch(grid, {threads}, 0, gate_attention_kernel<32>{c});
  else if (dg <= 64) ctx.launch(grid, {threads}, 0, gate_attention_kernel<64>{c});
  else ctx.launch(grid, {threads}, 2 * shared_bytes<float>(static_cast<std::size_t>(dg) * threads), wide_gate_attention_kernel{c});
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
