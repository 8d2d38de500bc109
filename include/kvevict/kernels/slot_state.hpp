// SPDX-License-Identifier: Apache-2.0
// Host kernels of a policy's per-slot state: read its sum, update rows of weights into it.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(sum_state_tag, host&);
void has_kernel(update_state_tag, host&);

/// Σ_c of N rows of floats, in order of c: no sum waits for its neighbour's.
template <int N> void sum_rows_of_floats(std::byte const* p, std::int64_t stride, std::int64_t width, float* to) {
  float sums[N] = {};
  for (std::int64_t c = 0; c < width; ++c)
    unroll<N>([&](auto k) { sums[k] += reinterpret_cast<float const*>(p + k * stride)[c]; });
  unroll<N>([&](auto k) { to[k] = sums[k]; });
}

/// The same of `count` rows.
inline void sum_floats(std::byte const* p, std::int64_t stride, std::int64_t width, std::int64_t count, float* to) {
  std::int64_t i = 0;
  if (stride == 4)
    for (; i + lanes <= count; i += lanes) store(to + i, load(p + i * 4) + vec{});
  for (; i + 8 <= count; i += 8) sum_rows_of_floats<8>(p + i * stride, stride, width, to + i);
  for (; i < count; ++i) sum_rows_of_floats<1>(p + i * stride, stride, width, to + i);
}

/// Adds x[i] to the float at p + i·stride, or puts it there; i < count.
inline void fold_floats(state_update how, float const* x, std::int64_t count, std::byte* p, std::int64_t stride) {
  bool const adds = how == state_update::add;
  for (; stride == 4 && count >= lanes; p += lanes * 4, x += lanes, count -= lanes)
    store(reinterpret_cast<float*>(p), adds ? load(p) + load(x) : load(x));
  for (; count > 0; p += stride, ++x, --count) {
    auto& to = *reinterpret_cast<float*>(p);
    to = adds ? to + *x : *x;
  }
}

/// values[j] = Σ_c state(j, c), in order of c. No scratch.
template <class Entry>
void kernel(sum_state_tag, host& ctx, layer_view<Entry> const& view, component const& state, score_rows const& out) {
  std::int64_t const width = state.width();
  ctx.for_each(
      out.count(),
      [&](std::int64_t r, std::int32_t) {
        row const& in = out.rows[r];
        if (!in.active) return;
        token_rows<Entry> const at = view.rows_of(state, in.sequence, in.head);
        each_run(at, 0, in.tokens, [&](std::int64_t first, std::int64_t count, std::byte const* p) {
          sum_floats(p, at.slot_stride, width, count, out.values + out.begin[r] + first);
        });
      },
      out.begin[out.count()] * width);
}

/// All columns of the tokens that have just arrived: zero.
template <class Entry>
void forget_fresh(token_rows<Entry> const& at, std::int64_t width, score_rows const& from, std::int64_t r,
                  std::int64_t first) {
  row const& in = from.rows[r];
  auto const forget = [&](std::byte* p) { kvevict::fill_n(reinterpret_cast<float*>(p), width, 0.0f); };
  if (from.positions == nullptr)
    return each_run(at, std::max<std::int64_t>(first, in.new_from), in.tokens,
                    [&](std::int64_t, std::int64_t count, std::byte* p) {
                      for (std::int64_t i = 0; i < count; ++i) forget(p + i * at.slot_stride);
                    });
  std::int32_t const* const order = from.positions + from.begin[r];
  for (std::int64_t j = first; j < in.tokens; j += 64) {  // most of them have none
    std::int64_t const end = std::min<std::int64_t>(j + 64, in.tokens);
    int fresh = 0;
    for (std::int64_t i = j; i < end; ++i) fresh |= int{order[i] >= in.new_from};
    for (std::int64_t i = j; fresh != 0 && i < end; ++i)
      if (order[i] >= in.new_from) forget(at(i));
  }
}

/// Updates the state by rows of weights. Tokens of order ≥ row.new_from are new: all their columns start from zero. The
/// read-only prefix is not written. No scratch. What comes before it in `observe` may have failed; this does not: an
/// executor that throws is done without.
template <class Entry>
void kernel(update_state_tag, host& ctx, layer_view<Entry> const& view, component const& state,
            update_options const& update, score_rows const& from) {
  constexpr std::int64_t at_once = 16;  // tokens, a cache line of every plane
  auto const update_row = [&](std::int64_t r, std::int32_t) {
    row const& in = from.rows[r];
    if (!in.active) return;
    token_rows<Entry> const at = view.rows_of(state, in.sequence, in.head);
    std::int64_t const begin = view.read_only_tokens(in.sequence);
    std::int32_t const planes = update.columns.planes(in.sequence, update.rows);
    if (update.new_tokens == new_token_state::zeroed) forget_fresh(at, state.width(), from, r, begin);
    if (planes == 1) {
      float const* const x = from.plane(0).scores(r).data;
      std::int64_t const column = update.columns.column(in.sequence, 0) * 4;
      return each_run(at, begin, in.tokens, [&](std::int64_t first, std::int64_t count, std::byte* p) {
        fold_floats(update.how, x + first, count, p + column, at.slot_stride);
      });
    }
    each_run(at, begin, in.tokens, [&](std::int64_t first, std::int64_t count, std::byte* p) {
      for (std::int64_t i = 0; i < count; i += at_once)
        for (std::int32_t w = 0; w < planes; ++w)
          fold_floats(update.how, from.plane(w).scores(r).data + first + i, std::min(at_once, count - i),
                      p + i * at.slot_stride + update.columns.column(in.sequence, planes - 1 - w) * 4, at.slot_stride);
    });
  };
  std::exception_ptr thrown;
  auto const written = ctx.try_each(from.count(), update_row, from.begin[from.count()] * 4 * update.rows, thrown);
#if KVEVICT_EXCEPTIONS
  if (written == host::progress::some) std::rethrow_exception(thrown);
#endif
  for (std::int64_t r = 0; written == host::progress::none && r < from.count(); ++r) update_row(r, 0);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
