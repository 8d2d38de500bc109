// SPDX-License-Identifier: Apache-2.0
// A row of a component as floats, in host code and in kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include <kvevict/cache/coded_rows.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/host_device.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>

#if defined(__CUDACC__)
#define KVEVICT_READS KVEVICT_HOST_DEVICE
#else
// A call that changes nothing that the compiler knows of, so that loops around it keep what they have worked out.
#define KVEVICT_READS [[gnu::noinline, gnu::pure]]
#endif

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Elements of a row that are read at once.
inline constexpr std::int32_t row_chunk = 8;

/// Σ_d row[d]·vector[d], in the order of d modulo row_chunk, whatever the layout. `reader`: of a row's chunks.
template <class Reader>
[[gnu::always_inline]] KVEVICT_HOST_DEVICE inline float dot_product(Reader const& reader, std::int64_t token,
                                                                    float const* vector) {
  float sum[row_chunk] = {};
  for (std::int32_t d = 0; d < reader.width(); d += row_chunk) {
    float x[row_chunk];
    reader.read(token, d, x);
    for (std::int32_t i = 0; i < row_chunk && d + i < reader.width(); ++i) sum[i] += x[i] * vector[d + i];
  }
  for (std::int32_t half = row_chunk / 2; half != 0; half /= 2)
    for (std::int32_t i = 0; i < half; ++i) sum[i] += sum[i + half];
  return sum[0];
}

/// row_reader of a component in f32, f16 or bf16, which does not look whether it is one.
template <class Entry> class float_reader {
 public:
  KVEVICT_HOST_DEVICE constexpr float_reader(layer_view<Entry> const& view, component const& c, std::int32_t b,
                                             std::int32_t h)
      : rows_(view.rows_of(c, b, h)),
        run_stride_(c.rows.run_stride),
        width_(static_cast<std::int32_t>(c.width())),
        a_run_(c.rows.run_bytes / size_of(c.type)),
        type_(c.type) {}
  KVEVICT_HOST_DEVICE constexpr float_reader(layer_view<Entry> const& view, component const& c, row const& of)
      : float_reader(view, c, of.sequence, of.head) {}

  KVEVICT_HOST_DEVICE constexpr std::int32_t width() const { return width_; }

  KVEVICT_HOST_DEVICE float operator()(std::int64_t token, std::int32_t d) const {
    std::byte const* const start = rows_(token);
    std::int32_t const run = d / a_run_, at = d - run * a_run_;
    return with_type(type_, [&](auto type) { return load<decltype(type)>(start + run * run_stride_, at); });
  }

  /// Elements [first, first + row_chunk) of a token's row, zeros behind its last. Always inline: a caller more must not
  /// make the others slower.
  [[gnu::always_inline]] KVEVICT_HOST_DEVICE void read(std::int64_t token, std::int32_t first,
                                                       float (&x)[row_chunk]) const {
    std::byte const* const start = rows_(token);
    if (type_ == dtype::f32) return read_as<float>(start, first, x);
    if (type_ == dtype::f16) return read_as<f16>(start, first, x);
    read_as<bf16>(start, first, x);
  }

  [[gnu::always_inline]] KVEVICT_HOST_DEVICE float dot(std::int64_t token, float const* vector) const {
    return dot_product(*this, token, vector);
  }

 private:
  template <class T> KVEVICT_HOST_DEVICE static float load(std::byte const* run, std::int32_t at) {
    return to_float(load_element<T>(run + at * static_cast<std::int32_t>(sizeof(T))));
  }
  template <class T>
  [[gnu::always_inline]] KVEVICT_HOST_DEVICE void read_as(std::byte const* start, std::int32_t first,
                                                          float (&x)[row_chunk]) const {
    if (a_run_ == width_ && first + row_chunk <= width_) {
      for (std::int32_t i = 0; i < row_chunk; ++i) x[i] = load<T>(start, first + i);
      return;
    }
    std::int32_t run = first / a_run_, at = first - run * a_run_;
    for (std::int32_t i = 0; i < row_chunk; ++i) {
      x[i] = first + i < width_ ? load<T>(start + run * run_stride_, at) : 0.0f;
      if (++at == a_run_) at = 0, ++run;
    }
  }

  token_rows<Entry> rows_;
  std::int64_t run_stride_;
  std::int32_t width_, a_run_;
  dtype type_;
};

/// The tokens of one (sequence, head) in one component, element by element as floats. What does not depend on the token
/// is worked out by the constructor; the view's memory is read by the calls alone, so make and call it where that
/// memory can be read: inside the functions that each_token and the reductions take.
///
///   row_reader const k(cache, component, row);      k(token, d);  k.read(token, first, x);  k.dot(token, vector)
///
/// Of a quantised component they are decoded; then the view and the component must outlive the reader.
/// Shapes   component (H,N,D) in f32, f16 or bf16, or quantised, any layout; D = width().
/// Cost     one division for the page of a token; a chunk of one run is read without another. Quantised: the bytes of
///          the row and of its scales, which every call looks up.
template <class Entry> class row_reader {
 public:
  KVEVICT_HOST_DEVICE constexpr row_reader(layer_view<Entry> const& view, component const& c, std::int32_t b,
                                           std::int32_t h)
      : floats_(view, c, b, h),
        width_(static_cast<std::int32_t>(c.width())),
        quantised_(c.is_quantised()),
        view_(&view),
        of_(&c),
        b_(b),
        h_(h) {}
  KVEVICT_HOST_DEVICE constexpr row_reader(layer_view<Entry> const& view, component const& c, row const& of)
      : row_reader(view, c, of.sequence, of.head) {}

  KVEVICT_HOST_DEVICE constexpr std::int32_t width() const { return width_; }

  KVEVICT_HOST_DEVICE float operator()(std::int64_t token, std::int32_t d) const {
    return quantised_ ? decode<1>(*view_, *of_, b_, h_, token, d).x[0] : floats_(token, d);
  }
  /// Elements [first, first + row_chunk) of a token's row, zeros behind its last.
  KVEVICT_HOST_DEVICE void read(std::int64_t token, std::int32_t first, float (&x)[row_chunk]) const {
    if (!quantised_) return floats_.read(token, first, x);
    auto const decoded = decode<row_chunk>(*view_, *of_, b_, h_, token, first);
    for (std::int32_t i = 0; i < row_chunk; ++i) x[i] = decoded.x[i];
  }
  KVEVICT_HOST_DEVICE float dot(std::int64_t token, float const* vector) const {
    return quantised_ ? dot_product(*this, token, vector) : floats_.dot(token, vector);
  }

 private:
  template <std::int32_t N> struct numbers { float x[N]; };
  template <std::int32_t N>
  KVEVICT_READS static numbers<N> decode(layer_view<Entry> const& view, component const& of, std::int32_t b,
                                         std::int32_t h, std::int64_t token, std::int32_t first) {
    numbers<N> out;
    row_code(of).read(coded_rows<Entry>(view, of, b, h)(token), first, out.x);
    return out;
  }

  float_reader<Entry> floats_;
  std::int32_t width_;
  bool quantised_;
  layer_view<Entry> const* view_;
  component const* of_;
  std::int32_t b_, h_;
};

/// The elements themselves, for a reduction: kernels::row_sums(ctx, rows, {}, D, row_elements{cache, component}, out)
/// adds up every channel. `Reader`: row_reader, or float_reader, which with_elements chooses.
template <class Entry, template <class> class Reader = row_reader> struct row_elements {
  layer_view<Entry> cache;
  component of;

  KVEVICT_HOST_DEVICE Reader<Entry> reader(row const& in) const { return {cache, of, in}; }
  [[gnu::always_inline]] KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t token, std::int32_t first,
                                                             float (&x)[row_chunk]) const {
    reader(in).read(token, first, x);
  }
};
template <class Entry> row_elements(layer_view<Entry>, component) -> row_elements<Entry>;

/// f(row_elements) of that component; of floats those that do not look, chunk by chunk, whether they are some.
template <class Entry, class F> void with_elements(layer_view<Entry> const& cache, component const& of, F&& f) {
  if (is_floating(of.type))
    f(row_elements<Entry, float_reader>{cache, of});
  else
    f(row_elements<Entry>{cache, of});
}

/// The scores themselves, for a reduction of one number a token.
struct row_scores {
  score_rows of;

  constexpr float operator()(row const& in, std::int64_t token) const { return of.score(in, token); }
};

/// The component of that role, whose elements `who` is about to read.
/// Errors   contract_violation if the cache has none, or its elements are no numbers.
template <class Entry> component const& readable(char const* who, layer_view<Entry> const& cache, role what) {
  component const* const found = cache.find(what);
  KVEVICT_EXPECTS(found != nullptr, who, ": the cache has no component ", name_of(what), "; add it to the view");
  KVEVICT_EXPECTS(found->has_numbers(), who, ": component ", name_of(what), " has type ", name_of(found->type), "; ",
                  messages::readable_types);
  return *found;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict

#undef KVEVICT_READS
