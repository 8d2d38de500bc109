// SPDX-License-Identifier: Apache-2.0
// ‖row‖² of every token, on a device.
#pragma once

#include <cstring>

#include <kvevict/cuda/move_rows.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// A token is served by `lanes` neighbouring lanes, each of which adds every lanes-th unit of 16 bytes (or every lanes-th element) of its row; then
/// the lanes are added up pairwise. So the order of additions depends on the row's width alone. Grid: (row, tokens).
template <class T, bool Wide, class Entry> struct squared_norms_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> view;
  component c;
  score_rows out;
  std::uint32_t chunks, lanes;
  std::int32_t units;  // of 16 bytes, or elements

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
    constexpr std::int32_t size = Wide ? 16 : static_cast<std::int32_t>(sizeof(T));
    std::int32_t const a_run = c.rows.run_bytes / size;
    std::byte const* const p = start + u / a_run * c.rows.run_stride + u % a_run * size;
    if constexpr (!Wide) {
      float const x = widen(*reinterpret_cast<T const*>(p));
      return fma(x, x, sum);
    } else {
      vec128 const v = load_once_vec128(t, p);
      T x[16 / sizeof(T)];
      memcpy(x, &v, sizeof x);
      KVEVICT_UNROLL
      for (T const e : x) sum = fma(widen(e), widen(e), sum);
      return sum;
    }
  }
};

template <class T, bool Wide, class Entry>
void launch_norms(device& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  auto const units = static_cast<std::int32_t>(c.rows.row_bytes() / (Wide ? 16 : static_cast<std::int64_t>(sizeof(T))));
  std::uint32_t lanes = 1;
  while (lanes < warp_size && static_cast<std::int32_t>(lanes) < units) lanes *= 2;
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256 / lanes);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             squared_norms_kernel<T, Wide, Entry>{ctx.watch(), view, c, out, chunks, lanes, units});
}

/// values[j] = Σ_d x_d² of every token of the active rows. One read of the component, 16 bytes at once where its addresses allow.
template <class Entry>
void kernel(kernels::squared_norms_tag, device& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  KVEVICT_EXPECTS(is_floating(c.type), "squared_norms: component ", name_of(c.what), " of type ", name_of(c.type), "; f32, f16 and bf16 have norms");
  bool const wide = unit_bytes<Entry>(c) == 16;
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
