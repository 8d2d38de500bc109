// SPDX-License-Identifier: Apache-2.0
// A keep set as a mask, for engines that hide what is not kept and move nothing (capability::masked).
#pragma once

#include <cstdint>
#include <type_traits>

#include <kvevict/apply/reading.hpp>
#include <kvevict/core/dtype.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Bit t of row b·heads + h says that slot t is kept: words[row·row_stride + t / bits] >> t % bits & 1, of `bits` = 32
/// or 8. Words beyond `width` bits are not touched, bits beyond a length are 0.
template <class Word> struct bit_rows {
  static_assert(std::is_same_v<Word, std::uint32_t> || std::is_same_v<Word, std::uint8_t>,
                "bit_rows: bits lie in words of uint32_t or uint8_t");
  using element = Word;
  static constexpr std::int64_t bits = 8 * sizeof(Word);

  Word* words = nullptr;
  std::int64_t width = 0, row_stride = 0;  // in bits; in words
};

/// data[b·seq_stride + h·head_stride + t] = kept, where slot t is, else `gone`, up to `width`. head_stride 0: one row
/// for all heads, which then keep one set.
template <class T> struct element_rows {
  using element = T;
  static constexpr std::int64_t bits = 1;

  T* data = nullptr;
  std::int64_t width = 0, seq_stride = 0, head_stride = 0;  // in elements
  T kept{}, gone{};
};
/// 0 or −∞, to be added to logits; T is float, f16 or bf16.
template <class T>
constexpr element_rows<T> additive_rows(T* data, std::int64_t width, std::int64_t seq_stride,
                                        std::int64_t head_stride) {
  return {data, width, seq_stride, head_stride, from_float<T>(0.0f), from_float<T>(-__builtin_inff())};
}

namespace moves {

/// Elements from the start of one row of a mask to those of the next sequence and of the next head.
struct mask_strides {
  std::int64_t elements, of_sequence, of_head;
  template <class T>
  constexpr mask_strides(element_rows<T> const& m, std::int32_t)
      : elements(m.width), of_sequence(m.seq_stride), of_head(m.head_stride) {}
  template <class Word>
  constexpr mask_strides(bit_rows<Word> const& m, std::int32_t heads)
      : elements(m.width / m.bits + (m.width % m.bits != 0)),
        of_sequence(validation::within_reach(m.row_stride, heads) ? m.row_stride * heads : -1),
        of_head(m.row_stride) {}

  constexpr bool apart(std::int64_t sequences, std::int64_t heads) const {
    if (of_head == 0) heads = 1;
    if ((sequences > 1 && of_sequence < elements) || (heads > 1 && of_head < elements)) return false;
    return sequences <= 1 || heads <= 1 || of_sequence >= (heads - 1) * of_head + elements ||
           of_head >= (sequences - 1) * of_sequence + elements;
  }
};

template <class T> void write_row(element_rows<T> const& to, std::int64_t at, slice<std::int32_t const> kept) {
  fill_n(to.data + at, to.width, to.gone);
  for (std::int32_t const t : kept) to.data[at + t] = to.kept;
}
template <class Word> void write_row(bit_rows<Word> const& to, std::int64_t at, slice<std::int32_t const> kept) {
  fill_n(to.words + at, (to.width + to.bits - 1) / to.bits, Word{0});
  for (std::int32_t const t : kept) {
    Word& word = to.words[at + t / to.bits];
    word = static_cast<Word>(word | 1u << t % to.bits);
  }
}

template <class Entry, class Rows>
void expect_mask(layer_view<Entry> const& v, keep_set const& keep, Rows const& to, void const* data) {
  mask_strides const m(to, v.heads());
  KVEVICT_EXPECTS(data != nullptr || v.rows() == 0, "mask: the mask has no memory; point it to its first row");
  KVEVICT_EXPECTS(to.width >= 0 && to.width <= std::int64_t{1} << 31, "mask: rows of ", to.width,
                  " columns; give one for every slot that a row can have, 2^31 at most");
  KVEVICT_EXPECTS((v.sequences() <= 1 || validation::within_reach(m.of_sequence, v.sequences())) &&
                      validation::within_reach(m.of_head, v.heads()) && m.apart(v.sequences(), v.heads()),
                  "mask: rows of ", m.elements, " elements, ", m.of_sequence, " apart from sequence to sequence and ",
                  m.of_head, " from head to head, overlap; give strides in elements");
  for (std::int64_t r = 0; r < v.rows(); ++r) {
    std::int64_t const b = r / v.heads(), h = r % v.heads();
    KVEVICT_EXPECTS(keep.lengths[static_cast<std::size_t>(r)] <= to.width, "mask: ", messages::row(b, h), " has ",
                    keep.lengths[static_cast<std::size_t>(r)], " tokens and a row of the mask ", to.width,
                    "; give it a column for every slot");
    KVEVICT_EXPECTS(m.of_head != 0 || same_tokens(keep, r, r - h), "mask: heads 0 and ", h, " of ",
                    messages::of_sequence(b),
                    " keep different tokens, but the mask has one row for both; give it a row per head "
                    "(head_stride), or use .with(heads::together{})");
  }
}

}  // namespace moves

/// Writes the whole mask of every row; the cache stays as it is, and so do its lengths. Slots behind a row's length are
/// masked, too.
///
/// Shapes   keep set of this view (B·H rows) → bit_rows (B·H, width / bits) or element_rows (B, H, width).
/// Cost     O(pages) checks, O(width) a row; no allocation after the first call of a size.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; a row longer than the mask; strides with which rows overlap; one row for heads that differ.
///          Nothing is written then.
template <class Context, class Entry, class Rows>
void mask(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, Rows const& to) {
  typename Rows::element* data = nullptr;
  if constexpr (Rows::bits == 1)
    data = to.data;
  else
    data = to.words;
  validate(view, ctx.scratch(), page_use::read);
  moves::expect_kept_rows("mask", ctx, view, fingerprint_of(view), keep);
  moves::expect_mask(view, keep, to, data);
  moves::mask_strides const m(to, view.heads());
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    std::int64_t const b = r / view.heads(), h = r % view.heads();
    if (m.of_head != 0 || h == 0) moves::write_row(to, b * m.of_sequence + h * m.of_head, keep.row(r));
  }
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
