// SPDX-License-Identifier: Apache-2.0
// Rows of a component as floats in whole vectors, a few tokens at a time: converted, decoded, turned back by a rope.
#pragma once

#include <type_traits>

#include <kvevict/core/fill.hpp>
#include <kvevict/kernels/tile_tokens.hpp>
#include <kvevict/kernels/turn_table.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

inline constexpr int rows_abreast = 4;  // that are visited at once

/// What turns the rows of elements back; nothing, where they are read as they lie.
template <class Elements> turning turning_of(Elements const& of) {
  if constexpr (requires { of.by; })
    return of.by;
  else
    return {};
}

/// The rows of a few tokens of one (sequence, head), as row_reader and unrotated_reader read them, vector by vector in
/// registers; zeros behind the width. No bit depends on the layout or on the neighbours of a token.
///
///   float_rows all(elements, memory);   all.go_to(row, first, count);   all.with_rows([&](auto rows) {
///     rows.visit(i, [&](std::int32_t d, vec const (&x)[abreast]) { … elements d … of tokens i, i + 1, … }); });
///
/// Vectors come in an order that the shape decides: pairs of halves side by side. Behind the last token it is repeated.
/// Cost     conversion and turning in every visit; of a rope one cosine and sine a pair and token, for all heads that
///          have the token at the same position. Rows of several runs, of codes, or of broken vectors are gathered.
template <class Entry> class float_rows {
 public:
  static constexpr int abreast = rows_abreast;

  template <class Elements>
  float_rows(Elements const& of, float* memory)
      : view_(of.cache),
        of_(of.of),
        by_(turning_of(of)),
        D_(static_cast<std::int32_t>(of.of.width())),
        memory_(memory),
        turns_(by_, memory + abreast * padded(D_, lanes)),
        positions_(by_.width == 0 ? nullptr : view_.find(role::position)),
        whole_(D_ % lanes == 0 && (by_.pairs == rope_pairs::halves ? by_.count() : by_.width) % lanes == 0),
        gathers_(of_.is_quantised() || of_.rows.n_runs != 1 || !whole_) {}
  float_rows(float_rows const&) = delete;

  static constexpr std::int64_t floats(std::int32_t width) {
    return padded(abreast * padded(width, lanes) + turn_table::floats(width), 16);
  }

  /// Tokens [first, first + count) of a row, count ≤ tokens_abreast.
  void go_to(row const& in, std::int64_t first, int count) {
    in_ = &in, first_ = first, count_ = count;
    if (!gathers_) {
      row_addresses(view_, of_, in.sequence, in.head, first, count, count, at_);
      std::int64_t const next = std::min<std::int64_t>(first + tokens_abreast, in.tokens - 1);
      row_addresses(view_, of_, in.sequence, in.head, next,
                    static_cast<int>(std::min<std::int64_t>(tokens_abreast, in.tokens - next)), tokens_abreast, ahead_);
    }
    if (by_.width != 0) hold_turns();
  }
  /// The rows of tokens i, i + 1, … of the block after this one come nearer while these are worked on.
  [[gnu::always_inline]] void fetch_ahead(int i) const {
    if (gathers_) return;
    for (int k = i; k < i + abreast; ++k) fetch_row(ahead_[k], of_.rows);
  }
  /// f(rows) with rows.visit(i, g) of their type: in f all of it is inline.
  template <class F> void with_rows(F&& f) {
    if (gathers_) return f(typed<float>{*this});
    with_type(of_.type, [&](auto type) { f(typed<decltype(type)>{*this}); });
  }
  template <class T> struct typed {
    float_rows& all;

    template <class F> [[gnu::always_inline]] void visit(int i, F&& f) const {
      std::byte const* rows[abreast];
      all.find(i, rows);
      all.visit_as<T>(rows, i, all.whole_ ? all.by_.width : 0, f);
    }
    /// Rows of the same lengths: as they lie, where turning them back does not stretch them.
    template <class F> [[gnu::always_inline]] void visit_for_lengths(int i, F&& f) const {
      std::byte const* rows[abreast];
      all.find(i, rows);
      all.visit_as<T>(rows, i, all.whole_ && all.by_.undo != 1 ? all.by_.width : 0, f);
    }
  };

 private:
  /// Where the rows of tokens i, i + 1, … are read.
  void find(int i, std::byte const* (&rows)[abreast]) {
    for (int k = 0; k < abreast; ++k)
      rows[k] = gathers_ ? reinterpret_cast<std::byte const*>(memory_ + k * padded(D_, lanes))
                         : at_[std::min(i + k, count_ - 1)];
    if (gathers_) gather(i);
  }
  void hold_turns() {
    std::int64_t positions[tokens_abreast];
    if (positions_ == nullptr) {
      for (int i = 0; i < count_; ++i) positions[i] = first_ + i + by_.first_position;
    } else {
      std::byte const* at[tokens_abreast];
      row_addresses(view_, *positions_, in_->sequence, in_->head, first_, count_, count_, at);
      for (int i = 0; i < count_; ++i) positions[i] = load_element<std::int32_t>(at[i]);
    }
    turns_.hold(positions, count_);
  }

  /// Tokens i, i + 1, … as floats into memory, turned back already where pairs are no whole vectors.
  [[gnu::noinline]] void gather(int i) {
    std::int64_t const stride = padded(D_, lanes);
    for (int k = 0; k < abreast; ++k) {
      int const token = std::min(i + k, count_ - 1);
      float* const to = memory_ + k * stride;
      read_token(view_, of_, in_->sequence, in_->head, first_ + token, to);
      kvevict::fill(to + D_, to + stride, 0.0f);
      if (!whole_) turns_.turn(token, to);
    }
  }

  template <class T, class F>
  [[gnu::always_inline]] void visit_as(std::byte const* const (&rows)[abreast], int i, std::int32_t turned,
                                       F&& f) const {
    // what f stores may be anything to the compiler, so nothing of this object is read between its calls
    std::int32_t const width = D_, half = turned / 2;
    bool const halves = by_.pairs == rope_pairs::halves;
    T const* from[abreast];
    float const* turn[abreast];
    for (int k = 0; k < abreast; ++k) {
      from[k] = reinterpret_cast<T const*>(rows[k]);
      turn[k] = turns_.of(std::min(i + k, count_ - 1));
    }
    auto const read = [&](int k, std::int32_t d) {
      return load_as_float<T>(reinterpret_cast<std::byte const*>(from[k] + d));
    };
    std::int32_t d = 0;
    if (halves) {
      for (; d < half; d += lanes) {
        vec a[abreast], b[abreast];
        unroll<abreast>([&](auto k) {
          vec const x = read(k, d), y = read(k, d + half), cos = load(turn[k] + d), sin = load(turn[k] + half + d);
          a[k] = multiply_add(x, cos, y * sin), b[k] = multiply_add(y, cos, -x * sin);
        });
        f(d, a), f(d + half, b);
      }
      d = turned;
    }
    for (; d < turned; d += lanes) {
      vec a[abreast];
      unroll<abreast>([&](auto k) {
        vec const x = read(k, d);
        a[k] = multiply_add(x, load(turn[k] + d), pairs_swapped(x) * load(turn[k] + turned + d));
      });
      f(d, a);
    }
    for (; d < width; d += lanes) {
      vec x[abreast];
      unroll<abreast>([&](auto k) { x[k] = read(k, d); });
      f(d, x);
    }
  }
  /// x[1], x[0], x[3], x[2] …
  static vec pairs_swapped(vec x) {
    using pairs __attribute__((vector_size(lanes * 4))) = std::uint64_t;
    pairs const p = reinterpret_cast<pairs>(x);
    return reinterpret_cast<vec>(p << 32 | p >> 32);
  }

  layer_view<Entry> const& view_;
  component const& of_;
  turning by_;
  std::int32_t D_;
  float* memory_;  // (abreast, D), then the table of turns
  turn_table turns_;
  component const* positions_;
  bool whole_, gathers_;  // all that a visit loads are whole vectors; rows come into memory_ first
  row const* in_ = nullptr;
  std::int64_t first_ = 0;
  int count_ = 0;
  std::byte const *at_[tokens_abreast], *ahead_[tokens_abreast];
};
template <class Elements>
float_rows(Elements const&, float*) -> float_rows<typename decltype(Elements::cache)::table_entry>;

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
