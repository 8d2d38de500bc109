// SPDX-License-Identifier: Apache-2.0
// Units within which a layer stage moves budget: a head's layers, or all heads' layers where heads share a budget.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include <kvevict/core/apportion.hpp>
#include <kvevict/evidence/planning.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// The layers of the model, as far as their lengths are known: from a view of all of them, or beside the budget.
template <class Entry> struct model_layers {
  layer_view<Entry> const* cache = nullptr;
  budget const* want = nullptr;

  constexpr std::int64_t count() const { return want->layer_count; }
  constexpr bool in_view() const { return cache->pages.layers == want->layer_count; }
  constexpr bool known() const { return in_view() || want->lengths.data != nullptr; }
  constexpr bool equal_heads() const {
    return cache->lengths.head_stride == 0 && (in_view() || want->lengths.head_stride == 0);
  }
  /// Layer l's row of sequence s in a view of all layers.
  constexpr std::int32_t row_of(std::int32_t s, std::int64_t l) const {
    return static_cast<std::int32_t>(l) * (cache->sequences() / cache->pages.layers) + s;
  }
  /// Which layer of the model a row of the view is of.
  constexpr std::int32_t layer_of(std::int32_t b) const { return want->layer + cache->pages.layer_of(b); }
  constexpr std::int32_t tokens(std::int32_t s, std::int64_t l, std::int32_t h) const {
    return in_view() ? cache->length(row_of(s, l), h) : want->lengths(s, static_cast<std::int32_t>(l), want->head + h);
  }
};

/// The layers of a unit as apportion's parts.
template <class Line, class Entry> struct unit_parts {
  Line line{};
  model_layers<Entry> all{};
  std::int32_t sequence = 0, head = 0, heads = 1;  // of a layer
  std::int32_t protected_tokens = 0;
  std::int32_t page = 1;  // shares and what is held are full pages of so many tokens

  constexpr std::int64_t count() const { return all.count(); }
  constexpr std::uint64_t denominator() const { return static_cast<std::uint64_t>(line.denominator); }
  constexpr std::uint64_t remainder(std::int64_t l) const { return line.remainder(l); }
  constexpr std::int64_t share(std::int64_t l) const {
    return ((line.share(l) + protected_tokens) * heads - rest(l)) / page;
  }
  constexpr std::int64_t held(std::int64_t l) const {
    std::int64_t sum = 0;
    for (std::int32_t h = head; h < head + heads; ++h) sum += all.tokens(sequence, l, h) / page;
    return sum;
  }
  /// Tokens of part-filled last pages.
  constexpr std::int64_t rest(std::int64_t l) const {
    std::int64_t sum = 0;
    for (std::int32_t h = head; page > 1 && h < head + heads; ++h) sum += all.tokens(sequence, l, h) % page;
    return sum;
  }
};

/// What a plan does to the layers of one unit, from all their lengths: decided once, and asked layer by layer.
///
///   Σ tokens ≤ Σ budgets: whole.   Else layer l keeps min(share(l), tokens), and what that leaves is spread by largest
///   remainder.   Where pages are kept whole: all of it in full pages, beside the part-filled ones
template <class Layers, class Entry> class unit_plan {
  using parts = unit_parts<decltype(std::declval<Layers const&>().line_of(layer_query{})), Entry>;

 public:
  /// `b`: a row of the view, any layer's where the unit has the rows of several; its heads [head, head + heads).
  constexpr unit_plan(protect const& keep, Layers const& layers, model_layers<Entry> const& all, std::int32_t b,
                      std::int32_t head, std::int32_t heads, std::int32_t page)
      : keep_(keep), row_(b) {
    parts of{};
    p_.page = of.page = page;
    of.all = all, of.sequence = all.cache->pages.sequence_of(b), of.head = head, of.heads = heads;
    std::int64_t tokens = 0, asked = 0, cut = 0;
    for (std::int64_t l = 0; l < all.count(); ++l) {
      if (std::int32_t const want = all.want->of(row_of(of, l)); !all.want->keeps_whole(row_of(of, l)))
        least_ = std::min(least_, want), asked += std::int64_t{want} * heads, ++cut;
      for (std::int32_t h = head; h < head + heads; ++h) {
        std::int32_t const here = all.tokens(of.sequence, l, h);
        if (here < 0) refuse(l, h, here, -1);
        tokens += here, p_.longest = std::max(p_.longest, here);
      }
    }
    if (!all.in_view()) compare(of, b);
    if (cut == 0) return;
    asked = asked * all.count() / cut;  // layers that are kept whole count as the others do
    p_.asked = static_cast<std::int32_t>(asked / (all.count() * heads));
    p_.cut = tokens > asked;
    if (least_ < 1 || !p_.cut || p_.wrong != sequence_plan::fault::none) return;
    for (std::int64_t l = 0; l < all.count(); ++l) {
      if (all.want->keeps_whole(row_of(of, l))) continue;
      sequence_plan const its = protected_of(of, l);
      if (its.wrong == sequence_plan::fault::none) {
        p_.protected_tokens = std::max(p_.protected_tokens, its.protected_tokens);
      } else if (!all.in_view()) {  // its prefixes are taken for those of all layers
        p_ = its;
        return;
      }
    }
    of.protected_tokens = p_.protected_tokens;
    of.line = layers.line_of({p_.asked, p_.protected_tokens, p_.longest, 0, static_cast<std::int32_t>(all.count())});
    std::int64_t rests = 0;
    for (std::int64_t l = 0; page > 1 && l < all.count(); ++l) rests += of.rest(l);
    shares_ = settled<parts>(of, pages_within(asked, rests, page));
  }

  /// Of layer l of the model, whose own budget was to be `asked`. A layer that protects more than the unit's mean is at
  /// fault alone; the others have their shares without it.
  constexpr sequence_plan of_layer(std::int64_t l, std::int32_t asked) const {
    sequence_plan out = p_;
    if (least_ < 1) out.cut = false, out.asked = asked;
    if (asked < 1) out.wrong = sequence_plan::fault::no_budget;
    if (!out.cut || out.wrong != sequence_plan::fault::none) return out;
    parts const& of = shares_.parts();
    sequence_plan const its = protected_of(of, l);
    out.wrong = its.wrong, out.front = its.front, out.back = its.back, out.protected_tokens = its.protected_tokens;
    out.rests = of.rest(l);
    out.budget = shares_.kept(l) * p_.page + out.rests, out.total = of.held(l) * p_.page + out.rests;
    return out;
  }

 private:
  constexpr std::int32_t row_of(parts const& of, std::int64_t l) const {
    return of.all.in_view() ? of.all.row_of(of.sequence, l) : row_;
  }
  /// What layer l protects, and whether the unit's mean holds it.
  constexpr sequence_plan protected_of(parts const& of, std::int64_t l) const {
    sequence_plan out = p_;
    out.protected_tokens = 0;
    std::int32_t const read_only = of.all.cache->read_only_tokens(row_of(of, l));
    for (std::int32_t h = of.head; h < of.head + of.heads; ++h) {
      std::int32_t const n = of.all.tokens(of.sequence, l, h);
      find_protected(out, keep_, read_only, n);
      if (out.page > 1) expect_pages(out, ends_of(out, keep_, n), n);
    }
    return out;
  }
  /// Of a row that has so many tokens.
  static constexpr void expect_pages(sequence_plan& p, row_ends const& ends, std::int32_t tokens) {
    std::int64_t const stay = std::min<std::int64_t>(tokens, std::int64_t{ends.front} + ends.back);
    if (stay <= p.asked || p.wrong != sequence_plan::fault::none) return;
    p.wrong = sequence_plan::fault::budget_below_protected, p.protected_tokens = static_cast<std::int32_t>(stay);
  }
  constexpr void refuse(std::int64_t l, std::int32_t h, std::int32_t given, std::int32_t has) {
    if (p_.wrong != sequence_plan::fault::none) return;
    p_.wrong = sequence_plan::fault::other_lengths;
    p_.layer = static_cast<std::int32_t>(l), p_.head = h, p_.given = given, p_.has = has;
  }
  /// Lengths beside the budget are those of the view.
  constexpr void compare(parts const& of, std::int32_t b) {
    std::int32_t const l = of.all.layer_of(b);
    for (std::int32_t h = of.head; h < of.head + of.heads; ++h) {
      std::int32_t const given = of.all.tokens(of.sequence, l, h), has = of.all.cache->length(b, h);
      if (given != has) refuse(l, h, given, has);
    }
  }

  protect keep_;
  std::int32_t row_;
  sequence_plan p_{};
  settled<parts> shares_{};
  std::int32_t least_ = std::numeric_limits<std::int32_t>::max();  // budget of a layer
};

/// One layer whose others are not known: min(tokens, the line's share if no length bent it).
///
///   Σ over the layers ≤ L·budget, whatever they hold
template <class Layers, class Entry>
constexpr sequence_plan plan_alone(protect const& keep, Layers const& layers, model_layers<Entry> const& all,
                                   std::int32_t b, std::int32_t head, std::int32_t heads, std::int32_t page) {
  sequence_plan p{};
  p.page = page;
  std::int32_t const read_only = all.cache->read_only_tokens(b);
  p.asked = all.want->of(b);
  if (p.asked < 1) {
    p.wrong = sequence_plan::fault::no_budget;
    return p;
  }
  for (std::int32_t h = head; h < head + heads; ++h) {
    std::int32_t const n = all.cache->length(b, h);
    p.total += n, p.longest = std::max(p.longest, n), p.rests += n % page;
  }
  constexpr std::int32_t endless = std::numeric_limits<std::int32_t>::max();
  std::int64_t const ends = most_protected(keep.front(read_only), keep.back(p.asked, read_only), page);
  p.budget = p.asked;
  if (ends <= p.asked) {
    auto const fixed = static_cast<std::int32_t>(ends), n = static_cast<std::int32_t>(all.count());
    p.budget = layers.line_of({p.asked, fixed, endless, 0, n}).share(all.layer_of(b)) + fixed;
  }
  p.budget *= heads;
  p.cut = p.total > p.budget;
  if (p.cut) find_protected(p, keep, read_only, p.longest);
  return p;
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
