// SPDX-License-Identifier: Apache-2.0
// A gate's attention on a device, one (token, gate head) per thread. Rows of the memory are taken eight at a time from
// the first on, in splits of 256 that are then put together in order, whatever the chunks, and those that a token does
// not see weigh 0: so no bit of C depends on what else is computed, nor on whether a thread takes all splits of a token
// or (few new tokens) one of them.
#pragma once

#include <kvevict/cuda/gate/softmax.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {
/// Heads up to Width wide: query and sums in registers, rows of the memory through shared memory, 16 at work while the
/// next 16 arrive. Grid: (sequence, head, tokens).
///
/// Shapes   queries (B·most_rows, A), memory rows (·, 2·A) → sums in place, or parts.
template <int Width> struct gate_attention_kernel {
  static constexpr int max_threads = 64;
  static constexpr int rows = 16, each = gate_softmax::each, tile = rows * 2 * Width;
  gate_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, float, tiles, 2 * tile);  // K' and V' of a row side by side
    gate_softmax::place const at(t, c);
    std::int32_t const fresh = c.in.rows(at.b), dg = c.w.head_dim,
                       i = at.first + static_cast<std::int32_t>(t.linear_index());
    if (at.first >= fresh || at.begin >= at.end) return;
    std::int64_t const end = at.end, seen = i >= fresh ? 0 : std::min(end, c.seen(at.b, i));
    float q[Width], sums[Width] = {};
    KVEVICT_UNROLL
    for (int d = 0; d < Width; ++d) q[d] = d < dg && i < fresh ? c.own_values(at.b, i, at.h)[d] : 0;
    gate_softmax::running weights;
    gate_softmax::gathered all;
    fetch(t, at, at.begin, tiles);
    for (std::int64_t first = at.begin; first < end; first += rows) {
      float* const now = tiles + first / rows % 2 * tile;
      fetch(t, at, first + rows, tiles + (first / rows + 1) % 2 * tile);
      wait_async<1>(t);
      t.sync_block();
      KVEVICT_KEEP_LOOP
      for (int j = 0; j < rows && first + j < seen; j += each)
        add_rows(t, now, j, static_cast<int>(std::min<std::int64_t>(seen - first, rows)), q, weights, sums);
      t.sync_block();
      if (first >= seen || (first + rows < seen && (first + rows) % gate_softmax::split != 0)) continue;
      auto const put = all.accumulate(weights);
      KVEVICT_UNROLL
      for (int d = 0; d < Width; ++d)
        if (d < dg) put(at.sums(c, i) + d, sums[d]);
      weights = {};  // which shrinks the sums to 0
    }
    wait_async(t);
    if (at.begin < seen) finish(c, all, at.sums(c, i));
  }

 private:
  /// Begins to bring rows `first` … of the memory; what is not there becomes 0.
  KVEVICT_DEVICE void fetch(thread& t, gate_softmax::place const& at, std::int64_t first, float* to) const {
    std::int64_t const A = c.w.width();
    float const* const memory = c.memory(at.b) + at.h * c.w.head_dim;
    bool const wide = c.w.head_dim % 4 == 0 && reinterpret_cast<std::uintptr_t>(memory) % 16 == 0;
    auto const step = wide ? 4 : 1, all = first < at.end ? tile : 0;
    KVEVICT_KEEP_LOOP
    for (int k = static_cast<int>(t.linear_index()) * step; k < all; k += static_cast<int>(t.block_size().x) * step) {
      std::int64_t const j = first + k / (2 * Width);
      bool const there = j < at.end && k % Width < c.w.head_dim;
      float const* const from = there ? memory + (2 * j + k / Width % 2) * A + k % Width : memory;
      if (wide)
        copy_async16(t, to + k, from, there ? 16 : 0);
      else
        to[k] = there ? *from : 0;
    }
    commit_async(t);
  }
  KVEVICT_DEVICE static float part(vec128 const& v, int i) {
    float x;
    memcpy(&x, &v.words[i], sizeof x);
    return x;
  }
  /// Rows j … j + 7 of the tile, of which those before `end` are seen; behind it the last seen one again.
  KVEVICT_DEVICE static void add_rows(thread& t, float const* loaded, int j, int end, float const (&q)[Width],
                                      gate_softmax::running& weights, float (&sums)[Width]) {
    float z[each];
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) {
      float const* const key = loaded + std::min(j + k, end - 1) * 2 * Width;
      z[k] = 0;
      KVEVICT_UNROLL
      for (int d = 0; d < Width; d += 4) {
        vec128 const four = load_vec128(t, key + d);
        KVEVICT_UNROLL
        for (int i = 0; i < 4; ++i) z[k] = fma(q[d + i], part(four, i), z[k]);
      }
      if (j + k >= end) z[k] = gate_softmax::hidden;
    }
    float const shrink = weights.accumulate(z);
    KVEVICT_UNROLL
    for (int d = 0; d < Width; ++d) sums[d] = multiply(sums[d], shrink);
    KVEVICT_UNROLL
    for (int k = 0; k < each; ++k) {
      float const* const value = loaded + (std::min(j + k, end - 1) * 2 + 1) * Width;
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
///
/// Shapes   as gate_attention_kernel.
struct wide_gate_attention_kernel {
  static constexpr int max_threads = 64, each = gate_softmax::each;
  gate_call c;

  /// As many as fit the shared memory of every device: a query and sums each, in float.
  static constexpr std::int32_t most_width = 96 * 1024 / 8;
  static constexpr std::uint32_t threads(std::int32_t dg) {
    return static_cast<std::uint32_t>(std::min(max_threads, most_width / dg));
  }

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int32_t const dg = c.w.head_dim, threads = static_cast<std::int32_t>(t.block_size().x);
    auto* const q = t.shared<float>(static_cast<std::size_t>(dg) * t.block_size().x) + t.linear_index();
    auto* const sums = t.shared<float>(static_cast<std::size_t>(dg) * t.block_size().x) + t.linear_index();
    gate_softmax::place const at(t, c);
    std::int32_t const i = at.first + static_cast<std::int32_t>(t.linear_index());
    std::int64_t const seen = i >= c.in.rows(at.b) ? 0 : std::min(at.end, c.seen(at.b, i)), A = c.w.width();
    if (at.begin >= seen) return;
    for (std::int32_t d = 0; d < dg; ++d) q[d * threads] = c.own_values(at.b, i, at.h)[d], sums[d * threads] = 0;
    float const* const memory = c.memory(at.b) + at.h * dg;
    gate_softmax::running weights;
    gate_softmax::gathered all;
    for (std::int64_t j = at.begin; j < seen; j += each) {
      float z[each] = {};
      for (std::int32_t d = 0; d < dg; ++d)
        for (int k = 0; k < each; ++k) z[k] = fma(q[d * threads], memory[std::min(j + k, seen - 1) * 2 * A + d], z[k]);
      for (int k = 0; k < each; ++k)
        if (j + k >= seen) z[k] = gate_softmax::hidden;
      float const shrink = weights.accumulate(z);
      for (std::int32_t d = 0; d < dg; ++d) {
        float sum = multiply(sums[d * threads], shrink);
        for (int k = 0; k < each; ++k) sum = fma(z[k], memory[std::min(j + k, seen - 1) * 2 * A + A + d], sum);
        sums[d * threads] = sum;
      }
      if (j + each < seen && (j + each) % gate_softmax::split != 0) continue;
      auto const put = all.accumulate(weights);
      for (std::int32_t d = 0; d < dg; ++d) put(at.sums(c, i) + d, sums[d * threads]);
      weights = {};
    }
    finish(c, all, at.sums(c, i));
  }
};

/// The parts of one (token, gate head) per thread become C.
///
/// Shapes   parts (B, splits, most_rows, Hg, dg + 2) → sums (B·most_rows, A).
struct gate_parts_kernel {
  static constexpr int max_threads = 128;
  gate_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.linear_index(), token = at / c.w.heads;
    auto const h = static_cast<std::int32_t>(at % c.w.heads), b = static_cast<std::int32_t>(token / c.in.most_rows),
               i = static_cast<std::int32_t>(token % c.in.most_rows);
    if (c.watch.stopped(t) || b >= c.sequences || i >= c.in.rows(b)) return;
    float* const own = c.own_values(b, i, h);
    gate_softmax::gathered all;
    for (std::int64_t s = 0; s * gate_softmax::split < c.seen(b, i); ++s) {
      float const* const part = c.part(b, s, i, h);
      auto const put = all.accumulate({part[c.w.head_dim], part[c.w.head_dim + 1]});
      for (std::int32_t d = 0; d < c.w.head_dim; ++d) put(own + d, part[d]);
    }
    for (std::int32_t d = 0; d < c.w.head_dim; ++d) own[d] /= all.total;
  }
};

/// Q' → C, in place.
inline void attend(device& ctx, frame& scratch, gate_call c) {
  std::int32_t const dg = c.w.head_dim;
  std::int64_t const tokens = std::int64_t{c.sequences} * c.in.most_rows;
  std::uint32_t const threads = dg <= 64 ? 64 : wide_gate_attention_kernel::threads(dg);
  c.tiles = blocks_for(c.in.most_rows, threads);
  if (c.in.memory.rows != nullptr && c.in.most_rows <= 64)
    c.splits = std::max(1u, blocks_for(c.in.memory.capacity, gate_softmax::split));
  if (c.splits > 1) c.parts = scratch.allocate<float>(tokens * c.splits * c.w.heads * (dg + 2));
  extent const grid{static_cast<std::uint32_t>(c.sequences) * static_cast<std::uint32_t>(c.w.heads) * c.tiles *
                    c.splits};
  if (dg <= 16)
    ctx.launch(grid, {threads}, 0, gate_attention_kernel<16>{c});
  else if (dg <= 32)
    ctx.launch(grid, {threads}, 0, gate_attention_kernel<32>{c});
  else if (dg <= 64)
    ctx.launch(grid, {threads}, 0, gate_attention_kernel<64>{c});
  else
    ctx.launch(grid, {threads}, 2 * shared_bytes<float>(static_cast<std::size_t>(dg) * threads),
               wide_gate_attention_kernel{c});
  if (c.splits > 1) ctx.launch({blocks_for(tokens * c.w.heads, 128)}, {128}, 0, gate_parts_kernel{c});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
