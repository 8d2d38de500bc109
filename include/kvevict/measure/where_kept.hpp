// SPDX-License-Identifier: Apache-2.0
// Where in their sequences the tokens of a keep set lie.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <kvevict/apply/reading.hpp>
#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Tokens by place: bin i of n has those from i/n to (i+1)/n of their row.
struct histogram {
  std::vector<std::int64_t> kept, held;  // (n) tokens that stay, and all

  /// Of all kept tokens those of bin i; 0 where none is kept.
  double share(std::size_t i) const {
    std::int64_t all = 0;
    for (std::int64_t const x : kept) all += x;
    return all == 0 ? 0 : static_cast<double>(kept.at(i)) / static_cast<double>(all);
  }
  /// −Σ share·ln share: ln n where all bins keep alike, 0 where one bin has them all.
  double entropy() const {
    double sum = 0;
    for (std::size_t i = 0; i < kept.size(); ++i)
      if (double const p = share(i); p > 0) sum -= p * std::log(p);
    return sum;
  }
};

/// Tokens [first, last) of a sequence: positions where the cache carries them, else slots.
struct stretch {
  std::int32_t sequence = 0;
  std::int64_t first = 0, last = 0;
};

/// Places of a row's tokens.
template <class Entry> class places {
 public:
  places(layer_view<Entry> const& view, std::int32_t b, std::int32_t h) : tokens_(view.length(b, h)) {
    if (component const* const c = view.find(role::position)) at_ = view.rows_of(*c, b, h), carried_ = true;
  }
  std::int64_t operator()(std::int64_t token) const {
    return carried_ ? std::int64_t{*reinterpret_cast<std::int32_t const*>(at_(token))} : token;
  }
  /// Behind the newest.
  std::int64_t end() const {
    std::int64_t last = -1;
    for (std::int64_t j = 0; j < tokens_; ++j) last = std::max(last, (*this)(j));
    return last + 1;
  }
  std::int32_t tokens() const { return tokens_; }

 private:
  token_rows<Entry> at_{};
  std::int32_t tokens_;
  bool carried_ = false;
};

template <class Entry>
void expect_places(char const* verb, host& ctx, layer_view<Entry> const& view, keep_set const& keep) {
  validate(view, ctx.scratch(), page_use::read);
  moves::expect_kept_rows(verb, ctx, view, fingerprint_of(view), keep);
  for (std::int64_t r = 0; r < view.rows() && view.find(role::position) != nullptr; ++r) {
    auto const b = static_cast<std::int32_t>(r / view.heads()), h = static_cast<std::int32_t>(r % view.heads());
    places<Entry> const at(view, b, h);
    for (std::int64_t j = 0; j < at.tokens(); ++j)
      KVEVICT_EXPECTS(at(j) >= 0, verb, ": ", messages::row(b, h), " has a token at position ", at(j),
                      "; give positions of 0 or more");
  }
}

/// Kept tokens of all rows by their place in the row, from its beginning to its newest token. A place is the position,
/// where the cache carries one, so that gaps of earlier evictions count; else the slot.
///
/// Shapes   a keep set of that view → n bins.
/// Cost     O(tokens).
/// Errors   contract_violation: fewer than one bin; an unsound view; a keep set of another one, or refused; a negative
///          position.
template <class Entry>
histogram where_kept(host& ctx, layer_view<Entry> const& view, keep_set const& keep, std::int32_t bins) {
  KVEVICT_EXPECTS(bins >= 1, "where_kept: ", bins, " bins; give at least one");
  expect_places("where_kept", ctx, view, keep);
  histogram out;
  out.kept.resize(static_cast<std::size_t>(bins)), out.held.resize(static_cast<std::size_t>(bins));
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    places<Entry> const at(view, static_cast<std::int32_t>(r / view.heads()),
                           static_cast<std::int32_t>(r % view.heads()));
    std::int64_t const end = at.end();
    auto const bin = [&](std::int64_t token) { return static_cast<std::size_t>(at(token) * bins / end); };
    for (std::int64_t j = 0; j < at.tokens(); ++j) ++out.held[bin(j)];
    for (std::int32_t const j : keep.row(r)) ++out.kept[bin(j)];
  }
  return out;
}

/// Of the tokens of some ranges (a needle's, a question's) the share that stays, over all heads of their sequences.
///
/// Errors   contract_violation: an unsound view; a keep set of another one, or refused; no range, one whose end is not
///          behind its begin, or that holds no token; two ranges of a sequence that are out of order or overlap.
template <class Entry>
double kept_share(host& ctx, layer_view<Entry> const& view, keep_set const& keep, std::vector<stretch> const& ranges) {
  expect_places("kept_share", ctx, view, keep);
  KVEVICT_EXPECTS(!ranges.empty(), "kept_share: no range of tokens; give at least one");
  std::int64_t held = 0, kept = 0;
  std::vector<std::int64_t> ends(static_cast<std::size_t>(view.sequences()), 0);  // of each one's ranges so far
  for (stretch const& range : ranges) {
    KVEVICT_EXPECTS(
        range.sequence >= 0 && range.sequence < view.sequences() && range.first >= 0 && range.first < range.last,
        "kept_share: the range [", range.first, ", ", range.last, ") of sequence ", range.sequence, " among ",
        view.sequences(), "; give 0 ≤ first < last of a sequence of the view");
    std::int64_t& end = ends[static_cast<std::size_t>(range.sequence)];
    KVEVICT_EXPECTS(end <= range.first, "kept_share: the range [", range.first, ", ", range.last, ") of sequence ",
                    range.sequence, " begins before the end of the one before it, ", end,
                    "; give a sequence's ranges in order, none within another");
    end = range.last;
    std::int64_t const before = held;
    for (std::int32_t h = 0; h < view.heads(); ++h) {
      places<Entry> const at(view, range.sequence, h);
      auto const is_in = [&](std::int64_t j) { return at(j) >= range.first && at(j) < range.last; };
      for (std::int64_t j = 0; j < at.tokens(); ++j) held += is_in(j);
      for (std::int32_t const j : keep(range.sequence, h)) kept += is_in(j);
    }
    KVEVICT_EXPECTS(held != before, "kept_share: the range [", range.first, ", ", range.last, ") of sequence ",
                    range.sequence,
                    " holds no token of the cache; give positions where the cache carries them, else "
                    "slots");
  }
  return static_cast<double>(kept) / static_cast<double>(held);
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
