// SPDX-License-Identifier: Apache-2.0
// What goes, as intervals: for engines that remove tokens by a range of positions, of slots or of cells.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/apply/reading.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// [first, last)
struct token_run {
  std::int64_t first = 0, last = 0;
  constexpr bool operator==(token_run const&) const = default;
};

/// What evicted tokens are called.
struct run_names {
  enum kind_type : std::uint8_t { slots, positions, entries };
  kind_type kind = slots;
  std::int64_t const* first_position = nullptr;  // (B), or null: the cache has a position component

  /// Of a cache without positions from which nothing has gone yet: slot t holds position first[b] + t.
  static constexpr run_names positions_from(std::int64_t const* first) { return {positions, first}; }
};

/// Runs of every row, ascending and maximal: no two of them touch.
class evicted {
 public:
  bool ok() const { return ready_; }
  slice<token_run const> operator()(std::int32_t b, std::int32_t h) const {
    KVEVICT_EXPECTS(ready_, "evicted: there is no result, because evicted_runs() has not been called, was refused or ",
                    "has failed; remove nothing");
    std::int64_t const r = std::int64_t{b} * heads_ + h;
    KVEVICT_EXPECTS(b >= 0 && h >= 0 && h < heads_ && r + 1 < static_cast<std::int64_t>(row_begin_.size()),
                    "evicted: there is no sequence ", b, ", head ", h, "; ask for one of the view that was provided");
    std::int64_t const first = row_begin_[static_cast<std::size_t>(r)];
    return {runs_.data() + first, row_begin_[static_cast<std::size_t>(r) + 1] - first};
  }

 private:
  template <class Context, class Entry>
  friend void evicted_runs(Context&, layer_view<Entry> const&, keep_set const&, run_names, evicted&);

  std::vector<token_run> runs_;
  std::vector<std::int64_t> row_begin_;  // (B·H + 1)
  std::int32_t heads_ = 0;
  bool ready_ = false;
};

namespace moves {

template <class Entry> void expect_names(layer_view<Entry> const& v, keep_set const& keep, run_names as) {
  KVEVICT_EXPECTS(as.kind != run_names::positions || as.first_position != nullptr || v.find(role::position) != nullptr,
                  "evicted_runs: the cache has no component position; add it to the view, or, where nothing was "
                  "evicted yet, give run_names::positions_from(first)");
  KVEVICT_EXPECTS(as.kind != run_names::positions || as.first_position == nullptr || v.order == row_order::ascending,
                  "evicted_runs: the view's rows are scattered, so that slot t does not hold position first + t; add a "
                  "component position to the view, or ask for run_names::slots");
  if (as.kind != run_names::entries) return;
  KVEVICT_EXPECTS(v.pages.page_size == 1 && !v.pages.is_identity() && !page_table<Entry>::holds_pointers,
                  "evicted_runs: entries name tokens where ids count pages of one token, and here a page has ",
                  v.pages.page_size, page_table<Entry>::holds_pointers ? " and an address" : "",
                  "; ask for run_names::slots or positions");
  expect_one_set("evicted_runs", v, keep);
}

/// The name of token t of row r.
template <class Entry>
std::int64_t name_of_token(layer_view<Entry> const& v, run_names as, std::int64_t r, std::int32_t t) {
  auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
  if (as.kind == run_names::slots) return t;
  if (as.kind == run_names::positions)
    return as.first_position != nullptr ? as.first_position[b] + t
                                        : element<std::int32_t>(v, *v.find(role::position), b, h, t);
  if constexpr (page_table<Entry>::holds_pointers)
    return 0;
  else
    return static_cast<std::int64_t>(v.pages.entry(b, h, t));
}

/// Names in order. None may be there twice, for a range would take both tokens. None that goes may be below 0, which
/// llama_memory_seq_rm reads as "from the beginning".
inline void expect_distinct(std::int64_t* stays, std::int64_t kept, std::int64_t* goes, std::int64_t lost,
                            contract::place of) {
  for (auto [x, n] : {std::pair{stays, kept}, std::pair{goes, lost}})
    if (!std::is_sorted(x, x + n)) std::sort(x, x + n);
  KVEVICT_EXPECTS(lost == 0 || goes[0] >= 0, "evicted_runs: a token of ", of, " has position ", lost == 0 ? 0 : goes[0],
                  ", below 0, which an engine may read as the row's beginning; give positions of 0 or more, or ask for "
                  "slots");
  std::int64_t const* other = stays;
  for (std::int64_t i = 0; i < lost; ++i) {
    while (other != stays + kept && *other < goes[i]) ++other;
    KVEVICT_EXPECTS((i == 0 || goes[i - 1] != goes[i]) && (other == stays + kept || *other != goes[i]),
                    "evicted_runs: two tokens of ", of, " have position ", goes[i],
                    ", so that no range of positions removes one of them; write each token's own, or ask for slots");
  }
}

}  // namespace moves

/// The evicted tokens of every row as intervals of slots, of logical positions or, with pages of one token, of entries
/// of the table; together with what is kept they are all tokens of the row. llama_memory_seq_rm(memory, sequence,
/// first, last) takes those of positions.
///
/// Shapes   keep set of this view (B·H rows) → runs a row.
/// Cost     O(pages) checks, O(N) a row; where positions do not ascend a sort. Nothing is written; no allocation after
///          the first call of a size.
/// Errors   contract_violation: unsound view; keep set of another view or epoch, or of a refused plan; a read-only
///          token dropped; no positions, or of scattered rows only the first; two tokens of a row at one position or
///          one below 0; entries of larger pages or of addresses, or different ones in rows of one table. `out` has no
///          result then.
template <class Context, class Entry>
void evicted_runs(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, run_names as, evicted& out) {
  out.ready_ = false;
  validate(view, ctx.scratch(), page_use::read);
  moves::expect_kept_rows("evicted_runs", ctx, view, fingerprint_of(view), keep);
  moves::expect_names(view, keep, as);
  out.runs_.clear(), out.row_begin_.assign(1, 0);
  out.heads_ = view.heads();
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    std::int32_t const n = keep.lengths[static_cast<std::size_t>(r)];
    slice<std::int32_t const> const kept = keep.row(r);
    frame scratch(ctx.scratch());
    auto *const stays = scratch.allocate<std::int64_t>(n), *const goes = scratch.allocate<std::int64_t>(n);
    std::int64_t i = 0, lost = 0;
    for (std::int32_t t = 0; t < n; ++t)
      (i < kept.size && kept[i] == t ? stays[i++] : goes[lost++]) = moves::name_of_token(view, as, r, t);
    moves::expect_distinct(stays, i, goes, lost, messages::row(r / view.heads(), r % view.heads()));
    for (std::int64_t k = 0; k < lost; ++k)
      if (k != 0 && out.runs_.back().last == goes[k])
        ++out.runs_.back().last;
      else
        out.runs_.push_back({goes[k], goes[k] + 1});
    out.row_begin_.push_back(static_cast<std::int64_t>(out.runs_.size()));
  }
  out.ready_ = true;
}

template <class Context, class Entry>
evicted evicted_runs(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, run_names as = {}) {
  evicted out;
  evicted_runs(ctx, view, keep, as, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
