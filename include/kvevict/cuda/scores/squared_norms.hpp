// SPDX-License-Identifier: Apache-2.0
// ‖row‖² of every token, on a device.
#pragma once

#include <cstring>

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/context/unit_bytes.hpp>
#include <kvevict/cuda/scores/coded_norms.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::squared_norms_tag, device&);

/// A token is served by 2^`lanes` neighbouring lanes, each of which adds every 2^lanes-th 16 bytes of its row, element
/// by element; then the lanes are added up pairwise. So the order of additions depends on the row's width alone, not on
/// where it lies. Grid: (row, tokens).
///
/// Shapes   a component (B·H, N, width) → scores (B·H, N).
template <class T, bool Wide, class Entry> struct squared_norms_kernel {
  // of a thread: as many tokens, and 16 bytes of each, are read at once
  static constexpr int max_threads = 256, tokens = 2, each = 4;
  watched watch;
  layer_view<Entry> view;
  component c;
  score_rows out;
  std::uint32_t chunks, lanes;
  std::int32_t units;  // of 16 bytes, the last one perhaps in part

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x / chunks;
    row const& it = out.rows[r];
    token_rows<Entry> const at = view.rows_of(c, it.sequence, it.head);
    std::int32_t const abreast = max_threads >> lanes, step = 1 << lanes, end = it.active ? it.tokens : 0;
    if (end == 0) return;  // there may be no page to read
    std::int32_t const lane = static_cast<std::int32_t>(t.linear_index()) & (step - 1);
    std::int32_t const first =
        static_cast<std::int32_t>(t.block().x - static_cast<std::uint32_t>(r) * chunks) * abreast * tokens +
        static_cast<std::int32_t>(t.linear_index() >> lanes);
    std::byte const* start[tokens];
    float sums[tokens] = {};
    KVEVICT_UNROLL
    for (int k = 0; k < tokens; ++k) start[k] = at(std::max(std::min(first + k * abreast, end - 1), 0));
    for (std::int32_t u = lane; u < units && first < end; u += each * step) {
      std::int64_t offset[each];
      vec128 x[tokens][each] = {};
      KVEVICT_UNROLL
      for (int e = 0; e < each; ++e) offset[e] = Wide ? c.rows.unit_offset(u + e * step, 16) : u + e * step;
      KVEVICT_UNROLL
      for (int k = 0; k < tokens; ++k) KVEVICT_UNROLL
      for (int e = 0; e < each; ++e)
        if (u + e * step < units) x[k][e] = read(t, start[k], offset[e]);
      KVEVICT_UNROLL
      for (int k = 0; k < tokens; ++k) KVEVICT_UNROLL
      for (int e = 0; e < each; ++e) sums[k] = with(x[k][e], sums[k]);
    }
    KVEVICT_UNROLL
    for (int k = 0; k < tokens; ++k) {
      for (std::uint32_t d = 1u << lanes >> 1; d != 0; d /= 2) sums[k] = add(sums[k], shuffle_xor(t, sums[k], d));
      if (lane == 0 && first + k * abreast < end) out.values[out.begin[r] + first + k * abreast] = sums[k];
    }
  }

 private:
  static constexpr std::int32_t size = static_cast<std::int32_t>(sizeof(T)), a_unit = 16 / size;

  /// The 16 bytes at an offset; or, one by one, those of a unit, zeros behind the row.
  KVEVICT_DEVICE vec128 read(thread& t, std::byte const* start, std::int64_t at) const {
    if constexpr (Wide)
      return load_once_vec128(t, start + at);
    else {
      std::int32_t const width = static_cast<std::int32_t>(c.rows.row_bytes()) / size;
      T x[a_unit];
      KVEVICT_UNROLL
      for (std::int32_t i = 0; i < a_unit; ++i) {
        auto const d = static_cast<std::int32_t>(at) * a_unit + i;
        x[i] = d < width ? *reinterpret_cast<T const*>(start + c.rows.unit_offset(d, size)) : T{};
      }
      vec128 v;
      memcpy(&v, x, sizeof v);
      return v;
    }
  }
  KVEVICT_DEVICE static float with(vec128 const& v, float sum) {
    T x[a_unit];
    memcpy(x, &v, sizeof x);
    KVEVICT_UNROLL
    for (T const e : x) sum = fma(widen(e), widen(e), sum);
    return sum;
  }
};

template <class T, bool Wide, class Entry>
void launch_norms(device& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  auto const units = static_cast<std::int32_t>((c.rows.row_bytes() + 15) / 16);
  using kernel = squared_norms_kernel<T, Wide, Entry>;
  std::uint32_t lanes = 0;
  while (lanes < 5 && kernel::each << lanes < units) ++lanes;
  std::uint32_t const chunks = blocks_for(out.most_tokens, kernel::tokens * (kernel::max_threads >> lanes));
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             kernel{ctx.watch(), view, c, out, chunks, lanes, units});
}

/// values[j] = Σ_d x_d² of every token of the active rows: the same bits in every layout. One launch and one read of
/// the component, 16 bytes
/// at once where its addresses and runs allow; quantised ones 8 elements at once.   Errors   contract_violation if the
/// component's elements are no numbers, or a function decodes them.
template <class Entry>
void kernel(kernels::squared_norms_tag, device& ctx, layer_view<Entry> const& view, component const& c,
            score_rows const& out) {
  KVEVICT_EXPECTS(c.has_numbers(), "squared_norms: component ", name_of(c.what), " of type ", name_of(c.type), "; ",
                  messages::readable_types);
  if (c.is_quantised()) return coded_norms(ctx, view, c, out);
  bool const wide = unit_bytes(view, c) == 16;
  with_type(c.type, [&](auto type) {
    if (wide)
      launch_norms<decltype(type), true>(ctx, view, c, out);
    else
      launch_norms<decltype(type), false>(ctx, view, c, out);
  });
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
