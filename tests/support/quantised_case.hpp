// SPDX-License-Identifier: Apache-2.0
// Every kind of quantised row: random bytes of it, and, by a decoder of its own in double, the numbers that they are.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <kvevict/cache/component.hpp>

#include "support/batch_cache.hpp"
#include "support/layouts.hpp"
#include "support/random.hpp"

namespace quantised_case {

using kvevict::component;
using kvevict::dtype;
using kvevict::quant_scope;
using kvevict::role;
using byte = std::uint8_t;
namespace maker = kvevict::quantised;

inline constexpr int D = 64;  // elements of a row

/// Sign, exponent, mantissa: the number that they stand for; `top` is not special where there is no infinity.
inline double binary(unsigned bits, int exponents, int mantissa, bool infinities) {
  int const bias = (1 << (exponents - 1)) - 1, top = (1 << exponents) - 1;
  int const e = static_cast<int>(bits >> mantissa) & top, m = static_cast<int>(bits) & ((1 << mantissa) - 1);
  double const sign = (bits >> (exponents + mantissa) & 1u) != 0 ? -1 : 1;
  if (infinities && e == top) return m == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  if (!infinities && e == top && m == (1 << mantissa) - 1) return std::nan("");
  double const unit = std::pow(2.0, (e == 0 ? 1 : e) - bias - mantissa);
  return sign * (e == 0 ? m : m + (1 << mantissa)) * unit;
}
inline double e4m3(byte x) { return binary(x, 4, 3, false); }
inline double e5m2(byte x) { return binary(x, 5, 2, true); }
inline double f16_at(byte const* p) { return binary(static_cast<unsigned>(p[0] | p[1] << 8), 5, 10, true); }
inline double bf16_at(byte const* p) { return binary(static_cast<unsigned>(p[0] | p[1] << 8), 8, 7, true); }
inline double f32_at(byte const* p) {
  float x;
  std::memcpy(&x, p, 4);
  return static_cast<double>(x);
}
inline int i8(byte x) { return x < 128 ? x : x - 256; }

/// Scales that lie in no row.
inline float tensor_scale = 0.375f;
inline float head_scales[12] = {0.011f, 0.007f, 0.013f, 0.017f, 0.019f, 0.012f,
                                0.016f, 0.014f, 0.018f, 0.009f, 0.015f, 0.010f};

/// d f16, m f16, 16 bytes: low halves first; x = code·d + m (ggml's q4_1), as an engine's own function has it.
inline void decode_q4_1(void const* from, float* y, std::int64_t k) {
  auto const* p = static_cast<byte const*>(from);
  for (std::int64_t b = 0; b < k / 32; ++b, p += 20, y += 32)
    for (int i = 0; i < 16; ++i) {
      auto const d = static_cast<float>(f16_at(p)), m = static_cast<float>(f16_at(p + 2));
      y[i] = static_cast<float>(p[4 + i] & 15) * d + m, y[i + 16] = static_cast<float>(p[4 + i] >> 4) * d + m;
    }
}

struct format {
  char const* name;
  int row_bytes;
  bool one_run;      // its blocks are not cut into runs
  int scale_floats;  // room for scales beside the row, in floats
  component (*describe)(component);
  double (*number)(byte const* row, byte const* scales, int h, int d);
  void (*fill)(byte* row, byte* scales, reference::generator&);
};

inline void put_f32(byte* p, double x) {
  auto const y = static_cast<float>(x);
  std::memcpy(p, &y, 4);
}
inline void put_half(byte* p, std::uint16_t bits) {
  p[0] = static_cast<byte>(bits & 255), p[1] = static_cast<byte>(bits >> 8);
}
inline void put_f16(byte* p, double x) { put_half(p, kvevict::from_float<kvevict::f16>(static_cast<float>(x)).bits); }
inline void put_bf16(byte* p, double x) { put_half(p, kvevict::from_float<kvevict::bf16>(static_cast<float>(x)).bits); }
inline void random_bytes(byte* p, int n, reference::generator& random) {
  for (int i = 0; i < n; ++i) p[i] = static_cast<byte>(random.bits());
}
/// Codes whose exponents are near that of 1.
inline void random_floats(byte* p, int low, int count, reference::generator& random) {
  for (int i = 0; i < D; ++i)
    p[i] = static_cast<byte>(low + static_cast<int>(random.below(static_cast<std::size_t>(count))) +
                             (random.below(2) != 0 ? 128 : 0));
}

/// All but by_channel, which needs pages of its own form.
inline std::vector<format> const& formats() {
  static std::vector<format> const all{
      {"fp8_e4m3, a scale for all", 64, false, 0,
       [](component c) { return maker::by_tensor(c, dtype::fp8_e4m3, tensor_scale); },
       [](byte const* r, byte const*, int, int d) { return e4m3(r[d]) * static_cast<double>(tensor_scale); },
       [](byte* r, byte*, reference::generator& g) { random_floats(r, 0x30, 0x18, g); }},
      {"fp8_e5m2, a scale for all in memory", 64, false, 0,
       [](component c) { return maker::by_tensor(c, dtype::fp8_e5m2, &tensor_scale); },
       [](byte const* r, byte const*, int, int d) { return e5m2(r[d]) * static_cast<double>(tensor_scale); },
       [](byte* r, byte*, reference::generator& g) { random_floats(r, 0x38, 0x0c, g); }},
      {"i8, a scale a head", 64, false, 0, [](component c) { return maker::by_head(c, dtype::i8, head_scales); },
       [](byte const* r, byte const*, int h, int d) { return i8(r[d]) * static_cast<double>(head_scales[h]); },
       [](byte* r, byte*, reference::generator& g) { random_bytes(r, 64, g); }},
      {"i8, a scale a token and head beside", 64, false, 1,
       [](component c) { return maker::by_component(c, dtype::i8, quant_scope::token_head); },
       [](byte const* r, byte const* s, int, int d) { return i8(r[d]) * f32_at(s); },
       [](byte* r, byte* s, reference::generator& g) { random_bytes(r, 64, g), put_f32(s, g.uniform(0.005, 0.02)); }},
      {"fp8_e4m3, bf16 scales of groups beside", 64, false, 2,
       [](component c) {
         return maker::by_component(c, dtype::fp8_e4m3, quant_scope::token_head_group, dtype::bf16, 16);
       },
       [](byte const* r, byte const* s, int, int d) { return e4m3(r[d]) * bf16_at(s + d / 16 * 2); },
       [](byte* r, byte* s, reference::generator& g) {
         random_floats(r, 0x30, 0x18, g);
         for (int i = 0; i < 4; ++i) put_bf16(s + 2 * i, g.uniform(0.2, 0.6));
       }},
      {"u4, f16 scales and zero points of groups beside", 32, false, 4,
       [](component c) {
         c = maker::by_component(c, dtype::u4, quant_scope::token_head_group, dtype::f16, 16);
         c.quant.stride = 4, c.quant.zero_at = 2;
         return c;
       },
       [](byte const* r, byte const* s, int, int d) {
         int const x = d % 2 == 0 ? r[d / 2] & 15 : r[d / 2] >> 4;
         return (x - f16_at(s + d / 16 * 4 + 2)) * f16_at(s + d / 16 * 4);
       },
       [](byte* r, byte* s, reference::generator& g) {
         random_bytes(r, 32, g);
         for (int i = 0; i < 4; ++i)
           put_f16(s + 4 * i, g.uniform(0.1, 0.3)), put_f16(s + 4 * i + 2, static_cast<double>(g.below(64)) / 4);
       }},
      {"i4, a scale for all", 32, false, 0, [](component c) { return maker::by_tensor(c, dtype::i4, tensor_scale); },
       [](byte const* r, byte const*, int, int d) {
         int const x = d % 2 == 0 ? r[d / 2] & 15 : r[d / 2] >> 4;
         return (x > 7 ? x - 16 : x) * static_cast<double>(tensor_scale);
       },
       [](byte* r, byte*, reference::generator& g) { random_bytes(r, 32, g); }},
      {"i8, vLLM's scale behind the row", 68, true, 0, [](component c) { return maker::scale_behind(c, dtype::i8); },
       [](byte const* r, byte const*, int, int d) { return i8(r[d]) * f32_at(r + 64); },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 64, g), put_f32(r + 64, g.uniform(0.005, 0.02));
       }},
      {"u8, OpenVINO's row", 72, true, 0, [](component c) { return maker::openvino(c, dtype::u8); },
       [](byte const* r, byte const*, int, int d) { return (r[8 + d] - f32_at(r + 4)) * f32_at(r); },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 72, g), put_f32(r, g.uniform(0.005, 0.02)),
             put_f32(r + 4, static_cast<double>(g.below(512)) / 2);
       }},
      {"u8, OpenVINO's groups", 96, true, 0, [](component c) { return maker::openvino(c, dtype::u8, 16); },
       [](byte const* r, byte const*, int, int d) {
         r += d / 16 * 24;
         return (r[8 + d % 16] - f32_at(r + 4)) * f32_at(r);
       },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 96, g);
         for (int i = 0; i < 4; ++i)
           put_f32(r + 24 * i, g.uniform(0.005, 0.02)), put_f32(r + 24 * i + 4, static_cast<double>(g.below(256)));
       }},
      {"u4, OpenVINO's row", 40, true, 0, [](component c) { return maker::openvino(c, dtype::u4); },
       [](byte const* r, byte const*, int, int d) {
         int const x = d % 2 == 0 ? r[8 + d / 2] >> 4 : r[8 + d / 2] & 15;
         return (x - f32_at(r + 4)) * f32_at(r);
       },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 40, g), put_f32(r, g.uniform(0.1, 0.3)), put_f32(r + 4, static_cast<double>(g.below(64)) / 4);
       }},
      {"q8_0", 68, true, 0, [](component c) { return maker::q8_0(c); },
       [](byte const* r, byte const*, int, int d) { return i8(r[d / 32 * 34 + 2 + d % 32]) * f16_at(r + d / 32 * 34); },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 68, g);
         for (int i = 0; i < 2; ++i) put_f16(r + 34 * i, g.uniform(0.005, 0.02));
       }},
      {"q4_0", 36, true, 0, [](component c) { return maker::q4_0(c); },
       [](byte const* r, byte const*, int, int d) {
         byte const* const b = r + d / 32 * 18;
         int const i = d % 32, x = i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4;
         return (x - 8) * f16_at(b);
       },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 36, g);
         for (int i = 0; i < 2; ++i) put_f16(r + 18 * i, g.uniform(0.1, 0.3));
       }},
      {"q4_1 by a function of the engine's", 40, true, 0,
       [](component c) { return maker::decoded_by(c, decode_q4_1, 32, 20); },
       [](byte const* r, byte const*, int, int d) {
         float y[64];
         decode_q4_1(r, y, 64);
         return static_cast<double>(y[d]);
       },
       [](byte* r, byte*, reference::generator& g) {
         random_bytes(r, 40, g);
         for (int i = 0; i < 2; ++i)
           put_f16(r + 20 * i, g.uniform(0.1, 0.3)), put_f16(r + 20 * i + 2, g.uniform(-2.0, -1.0));
       }},
  };
  return all;
}

/// Whether rows of that layout, K and V, are one run.
inline bool has_one_run(layouts::layout l) {
  return l != layouts::layout::x_packed && l != layouts::layout::transposed_v && l != layouts::layout::head_blocks;
}

/// The bytes of a row, and of its scales beside it, run by run.
template <class Entry>
std::vector<byte> bytes_of(kvevict::layer_view<Entry> const& v, component const& c, int b, int h, int t) {
  std::vector<byte> out;
  std::byte const* const start = v.row(c, b, h, t);
  for (int r = 0; r < c.rows.n_runs; ++r)
    for (int i = 0; i < c.rows.run_bytes; ++i) out.push_back(static_cast<byte>(start[r * c.rows.run_stride + i]));
  return out;
}
template <class Entry>
void put_bytes(kvevict::layer_view<Entry> const& v, component const& c, int b, int h, int t,
               std::vector<byte> const& from) {
  std::byte* const start = v.row(c, b, h, t);
  for (int r = 0; r < c.rows.n_runs; ++r)
    for (int i = 0; i < c.rows.run_bytes; ++i)
      start[r * c.rows.run_stride + i] =
          static_cast<std::byte>(from[static_cast<std::size_t>(r * c.rows.run_bytes + i)]);
}

/// A cache of that layout whose rows have the format's bytes; call quantise() to make its view one of the format.
inline layouts::cache_shape shape_of(layouts::cache_shape s, format const& f) {
  s.type = dtype::opaque, s.head_dim = f.row_bytes, s.state_floats = 2 * f.scale_floats;
  return s;
}
template <class Cache> void quantise(Cache& cache, format const& f, std::uint64_t seed) {
  auto& v = cache.view;
  component state{};
  std::int32_t n = 0;
  for (std::int32_t i = 0; i < v.component_count; ++i) {
    component c = v.components[static_cast<std::size_t>(i)];
    if (c.what == role::state) {
      state = c;
      continue;
    }
    v.components[static_cast<std::size_t>(n++)] = c.what == role::k || c.what == role::v ? f.describe(c) : c;
  }
  v.component_count = n;
  if (f.scale_floats != 0) {  // the state's room
    state.type = v.find(role::k)->quant.type, state.what = role::k_scale, state.rows.run_bytes = 4 * f.scale_floats;
    v = v.with(state);
    state.what = role::v_scale, state.rows.offset += 4 * f.scale_floats;
    v = v.with(state);
  }
  reference::generator random(seed);
  cache.for_each_slot([&](int b, int h, int t) {
    for (role const what : {role::k, role::v}) {
      std::vector<byte> row(static_cast<std::size_t>(f.row_bytes)),
          scales(static_cast<std::size_t>(4 * f.scale_floats));
      f.fill(row.data(), scales.data(), random);
      put_bytes(v, *v.find(what), b, h, t, row);
      if (f.scale_floats != 0) put_bytes(v, *v.scales_of(*v.find(what)), b, h, t, scales);
    }
  });
}

/// A row's numbers in double, by the decoder of this file.  → (D)
template <class Entry>
std::vector<double> numbers_of(kvevict::layer_view<Entry> const& v, format const& f, role what, int b, int h, int t) {
  component const& c = *v.find(what);
  auto const row = bytes_of(v, c, b, h, t);
  auto const scales = f.scale_floats == 0 ? std::vector<byte>{} : bytes_of(v, *v.scales_of(c), b, h, t);
  std::vector<double> out;
  for (int d = 0; d < D; ++d) out.push_back(f.number(row.data(), scales.data(), h, d));
  return out;
}

/// The batch whose keys and values are those of the cache.
template <class Cache> void take_numbers(Cache const& cache, format const& f, support::batch& in) {
  cache.for_each_slot([&](int b, int h, int t) {
    auto const k = numbers_of(cache.view, f, role::k, b, h, t), v = numbers_of(cache.view, f, role::v, b, h, t);
    auto& l = in.layers[static_cast<std::size_t>(b)];
    for (std::size_t d = 0; d < static_cast<std::size_t>(D); ++d) {
      auto const at = [&](reference::cube& x) -> double& {
        return x.at(static_cast<std::size_t>(h), static_cast<std::size_t>(t), d);
      };
      at(l.keys) = static_cast<double>(static_cast<float>(k[d]));
      at(l.values) = static_cast<double>(static_cast<float>(v[d]));
    }
  });
}

}  // namespace quantised_case
