// SPDX-License-Identifier: Apache-2.0
// ‖row‖² of every token, on a device.
#pragma once

#include <cstring>

#include <kvevict/cuda/move_rows.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// A token is served by `lanes` neighbouring lanes, each of which adds every lanes-th 16 bytes of its row, element by element; then the lanes
/// are added up pairwise. So the order of additions depends on the row's width alone, not on where it lies. Grid: (row, tokens).
template <class T, bool Wide, class Entry> struct squared_norms_kernel {
  static constexpr int max_threads = 256;
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
    std::int64_t const j = std::int64_t{t.block().x % chunks} * (max_threads / lanes) + t.rank() / lanes;
    bool const here = it.active && j < it.tokens;
    float sum = 0;
    if (here) {
      std::byte const* const start = view.row(c, it.sequence, it.head, j);
      for (auto u = static_cast<std::int32_t>(t.rank() % lanes); u < units; u += static_cast<std::int32_t>(lanes)) sum = with_unit(t, start, u, sum);
    }
    for (std::uint32_t d = lanes / 2; d != 0; d /= 2) sum = add(sum, shuffle_xor(t, sum, d));
    if (here && t.rank() % lanes == 0) out.values[out.begin[r] + j] = sum;
  }

 private:
  KVEVICT_DEVICE float with_unit(thread& t, std::byte const* start, std::int32_t u, float sum) const {
    constexpr auto size = static_cast<std::int32_t>(sizeof(T)), a_unit = 16 / size;
    if constexpr (Wide) {
      std::int32_t const a_run = c.rows.run_bytes / 16;
      vec128 const v = load_once_vec128(t, start + u / a_run * c.rows.run_stride + u % a_run * 16);
      T x[a_unit];
      memcpy(x, &v, sizeof x);
      KVEVICT_UNROLL
      for (T const e : x) sum = fma(widen(e), widen(e), sum);
    } else {
      std::int32_t const a_run = c.rows.run_bytes / size, width = a_run * c.rows.n_runs;
      for (std::int32_t d = u * a_unit; d < width && d < (u + 1) * a_unit; ++d) {
        float const x = widen(*reinterpret_cast<T const*>(start + d / a_run * c.rows.run_stride + d % a_run * size));
        sum = fma(x, x, sum);
      }
    }
    return sum;
  }
};

template <class T, bool Wide, class Entry>
void launch_norms(device& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  auto const units = static_cast<std::int32_t>((c.rows.row_bytes() + 15) / 16);
  std::uint32_t lanes = 1;
  while (lanes < warp_size && static_cast<std::int32_t>(lanes) < units) lanes *= 2;
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256 / lanes);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             squared_norms_kernel<T, Wide, Entry>{ctx.watch(), view, c, out, chunks, lanes, units});
}

/// values[j] = Σ_d x_d² of every token of the active rows: the same bits in every layout. One launch and one read of the component, 16 bytes
/// at once where its addresses and runs allow.   Errors   contract_violation if the component is not floating.
template <class Entry>
void kernel(kernels::squared_norms_tag, device& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  KVEVICT_EXPECTS(is_floating(c.type), "squared_norms: component ", name_of(c.what), " of type ", name_of(c.type), "; f32, f16 and bf16 have norms");
  bool const wide = unit_bytes(view, c) == 16;
  auto const with = [&](auto type) {
    if (wide) launch_norms<decltype(type), true>(ctx, view, c, out);
    else launch_norms<decltype(type), false>(ctx, view, c, out);
  };
  if (c.type == dtype::f16) with(f16{});
  else if (c.type == dtype::bf16) with(bf16{});
  else with(float{});
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
