// SPDX-License-Identifier: Apache-2.0
// From the codes of a quantised row to floats, in host code and in kernels: the one place that does it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <kvevict/cache/component.hpp>
#include <kvevict/core/host_device.hpp>

#if defined(__CUDACC__)
#define KVEVICT_DECODES KVEVICT_HOST_DEVICE
#else
// Out of line, as decode(): its products are rounded before a caller adds something to them, so that scores have the
// bits that those of a decoded cache have.
#define KVEVICT_DECODES [[gnu::noinline]]
#endif

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The T at p. On a device by one load: rows and scales are aligned to their elements.
template <class T> KVEVICT_HOST_DEVICE T load_element(std::byte const* p) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<T const*>(p);
#else
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
#endif
}

/// A row's bytes, and those that its scales are entries of.
struct coded_row {
  std::byte const *codes, *scales;
};

/// Codes i, i + 1, … of p, which lie side by side and have one scale.
struct code_piece {
  std::byte const* p;
  std::int32_t i, count;
  float scale, zero;
};

/// What turns the codes of a component's rows into floats, wherever the row lies; floats are themselves.
///
///   x[d] = (code[d] − zero) · scale      with the entry of d's group; two operations in float, each rounded
///
/// Cost     a load of scale and zero point a group and run; of decode_function a call for every block that is touched.
class row_code {
 public:
  KVEVICT_HOST_DEVICE explicit constexpr row_code(component const& c)
      : how_(c.quant),
        type_(c.type),
        width_(static_cast<std::int32_t>(c.width())),
        a_run_(static_cast<std::int32_t>(c.elements(c.rows.run_bytes))),
        group_(!c.is_quantised() || c.group == 0 ? width_ : c.group),
        run_stride_(c.rows.run_stride) {
    if (!c.is_quantised()) how_ = {};
    if (c.is_quantised() && c.scope == quant_scope::page_channel) group_ = 1;
  }
  /// Of no elements.
  row_code() = default;

  KVEVICT_HOST_DEVICE constexpr std::int32_t width() const { return width_; }

  /// Elements [first, first + count) of a row, count ≥ 0, all within its width. Host only.
  [[gnu::noinline]] void decode(coded_row const& row, std::int32_t first, std::int32_t count, float* out) const {
    if (how_.decode != nullptr) return call(row.codes, first, count, out);
    with_code([&](auto type) {
      std::int32_t const end = first + count;
      for (std::int32_t d = first; d < end;) {
        code_piece const p = piece_at(row, d);
        std::int32_t const n = p.count < end - d ? p.count : end - d;
        for (std::int32_t i = 0; i < n; ++i) out[i] = value<decltype(type)>(p, i);
        d += n, out += n;
      }
    });
  }
  /// Elements [first, first + N) of a row, zeros behind its last.
  template <std::int32_t N> KVEVICT_DECODES void read(coded_row const& row, std::int32_t first, float (&x)[N]) const {
#if !defined(__CUDA_ARCH__)
    if (how_.decode != nullptr) {
      std::int32_t const n = width_ - first < N ? width_ - first : N;
      for (std::int32_t i = n; i < N; ++i) x[i] = 0;
      return call(row.codes, first, n, x);
    }
#endif
    with_code([&](auto type) {
      code_piece p = piece_at(row, first);
      std::int32_t at = 0;
      for (std::int32_t i = 0; i < N; ++i) {
        bool const there = first + i < width_;
        if (at == p.count && there) p = piece_at(row, first + i), at = 0;
        x[i] = there ? value<decltype(type)>(p, at++) : 0.0f;
      }
    });
  }

  /// What lies beside element d of a row and has its scale; and an element of it.
  KVEVICT_HOST_DEVICE code_piece piece_at(coded_row const& row, std::int32_t d) const {
    std::int32_t const g = d / group_, at = d - g * group_, run = d / a_run_, in_run = d - run * a_run_;
    std::byte const* const start = row.codes + run * run_stride_;
    code_piece out{start, in_run, group_ - at < a_run_ - in_run ? group_ - at : a_run_ - in_run, how_.scale, how_.zero};
    if (how_.place == scale_place::value) return out;
    std::byte const* entry = row.scales + std::int64_t{g} * how_.stride;
    if (how_.place == scale_place::in_row) {
      entry = start + std::int64_t{in_run / group_} * how_.stride;
      out.p = entry + how_.data_at, out.i = at;
    }
    out.scale = number(entry + how_.scale_at);
    if (how_.zero_at != quantisation::nowhere) out.zero = number(entry + how_.zero_at);
    return out;
  }
  KVEVICT_HOST_DEVICE float value(code_piece const& p, std::int32_t i) const {
    float x = 0;
    with_code([&](auto type) { x = value<decltype(type)>(p, i); });
    return x;
  }

 private:
  /// Two codes in a byte.
  struct half_bytes {};

  /// f(T{}) with the type that codes are read as.
  template <class F> KVEVICT_HOST_DEVICE void with_code(F&& f) const {
    switch (type_) {
      case dtype::fp8_e4m3: return f(fp8_e4m3{});
      case dtype::fp8_e5m2: return f(fp8_e5m2{});
      case dtype::i8: return f(std::int8_t{});
      case dtype::u8: return f(std::uint8_t{});
      case dtype::i4:
      case dtype::u4: return f(half_bytes{});
      default: return with_type(type_, f);
    }
  }

  template <class T> KVEVICT_HOST_DEVICE float value(code_piece const& p, std::int32_t i) const {
    if constexpr (std::is_same_v<T, half_bytes>)
      return scaled(static_cast<float>(half_byte(p.p, p.i + i)), p);
    else if constexpr (std::is_same_v<T, fp8_e4m3> || std::is_same_v<T, fp8_e5m2>)
      return scaled(to_float(load_element<T>(p.p + p.i + i)), p);
    else if constexpr (std::is_integral_v<T>)
      return scaled(static_cast<float>(load_element<T>(p.p + p.i + i)), p);
    else
      return to_float(load_element<T>(p.p + (p.i + i) * static_cast<std::int32_t>(sizeof(T))));
  }
  KVEVICT_HOST_DEVICE std::int32_t half_byte(std::byte const* p, std::int32_t i) const {
    bool const halves = how_.nibbles == nibble_order::halves;
    std::int32_t const half = group_ / 2, at = halves ? (i < half ? i : i - half) : i / 2;
    bool const high = halves ? i >= half : (i % 2 != 0) == (how_.nibbles == nibble_order::low_first);
    std::int32_t const byte = static_cast<std::int32_t>(p[at]), x = high ? byte >> 4 : byte & 15;
    return type_ == dtype::i4 && x > 7 ? x - 16 : x;
  }
  KVEVICT_HOST_DEVICE static float scaled(float x, code_piece const& p) {
#if defined(__CUDA_ARCH__)
    return __fmul_rn(__fsub_rn(x, p.zero), p.scale);
#else
    return (x - p.zero) * p.scale;
#endif
  }
  /// A scale or a zero point.
  KVEVICT_HOST_DEVICE float number(std::byte const* p) const {
    return with_type(how_.type, [&](auto type) { return to_float(load_element<decltype(type)>(p)); });
  }

  /// Whole blocks at once, others through a buffer.
  void call(std::byte const* row, std::int32_t first, std::int32_t count, float* out) const {
    for (std::int32_t end = first + count; first < end;) {
      std::int32_t const block = first / group_, at = first - block * group_, whole = (end - first) / group_;
      void const* const from = row + std::int64_t{block} * how_.stride;
      if (at == 0 && whole > 0) {
        how_.decode(from, out, std::int64_t{whole} * group_);
        first += whole * group_, out += whole * group_;
        continue;
      }
      float all[most_block];
      how_.decode(from, all, group_);
      for (; first < end && first / group_ == block; ++first) *out++ = all[first - block * group_];
    }
  }

  quantisation how_{};
  dtype type_ = dtype::f32;
  std::int32_t width_ = 0, a_run_ = 1, group_ = 1;
  std::int64_t run_stride_ = 0;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict

#undef KVEVICT_DECODES
