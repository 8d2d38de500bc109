// SPDX-License-Identifier: Apache-2.0
// The first kernel of a call: lengths and offsets, which everything else is read by.
#pragma once

#include <type_traits>

#include <kvevict/cuda/evidence/check_pages.hpp>
#include <kvevict/evidence/validate.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

struct no_rows {};

/// The first kernel of a call. What depends on nothing that is not known yet: lengths against tables, prefixes, padding
/// and each other, CSR offsets, how many rows of evidence each sequence provides. And zeros where the next kernel notes
/// pages.
///
/// It makes the call's status anew, each sequence's record by the block that checks the sequence: what it finds, what
/// another call was refused with whose result this one takes, or nothing. The word is zero then; the next kernel, which
/// reads the records, raises it. A sticky status stays what it is where it was raised.
///
/// Shapes   a view of (B·H) rows, evidence of B sequences (or none) → words of zeros. A block a sequence, threads over
///          its heads.
template <class Entry, class Rows> struct check_view_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  layer_view<Entry> v;
  Rows rows;
  visibility sees;
  std::uint32_t* words;
  std::int64_t count;
  call_status parent;  // of the call whose result is taken, or none
  bool sticky;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (sticky && atomic_load(t, watch.raised) != 0) return;
    for (std::int64_t i = std::int64_t{t.block().x} * t.block_size().x + t.linear_index(); i < count;
         i += std::int64_t{t.grid_size().x} * t.block_size().x)
      words[i] = 0;
    if (t.block().x == 0 && t.linear_index() == 0) take_over(t);
    for (auto b = static_cast<std::int32_t>(t.block().x); b < watch.room;
         b += static_cast<std::int32_t>(t.grid_size().x))
      check_sequence(t, b);
  }

 private:
  /// A thread's earliest fault, or none.
  struct found {
    fault_record f;
    KVEVICT_DEVICE void take(watched const& by, fault kind, std::int32_t b, std::int32_t h, std::int64_t what,
                             std::int64_t other, std::int32_t more = 0) {
      if (fault_record::place_of(kind, h, 0) > f.place)
        f = by.record_of(kind, b, h, what, other, 0, more, 0, by.verb), f.unreadable = true;
    }
  };

  KVEVICT_DEVICE void take_over(thread& t) const {
    fault_record& to = watch.taken_over();
    if (!sticky) *watch.raised = 0;
    to = {};
    if (parent.raised == nullptr || atomic_load(t, parent.raised) == 0) return;
    for (std::int32_t i = -1; i < parent.room && to.place == 0; ++i) to = parent.records[i];
  }

  KVEVICT_DEVICE void check_sequence(thread& t, std::int32_t b) const {
    KVEVICT_SHARED(t, std::uint64_t, first, 1);
    if (t.linear_index() == 0) first[0] = 0;
    t.sync_block();
    found mine{};
    if (b < v.sequences())
      for (auto h = static_cast<std::int32_t>(t.linear_index()); h < v.heads();
           h += static_cast<std::int32_t>(t.block_size().x))
        check_row(mine, b, h);
    if (mine.f.place != 0) atomic_max(t, &first[0], mine.f.place);
    t.sync_block();
    if (first[0] == 0 ? t.linear_index() == 0 : mine.f.place == first[0]) watch.records[b] = mine.f;
    if (mine.f.place != 0 && mine.f.place == first[0]) watch.note(t, watch.all, mine.f);
    t.sync_block();
  }

  KVEVICT_DEVICE void check_row(found& mine, std::int32_t b, std::int32_t h) const {
    std::int64_t const n = v.length(b, h), fixed = v.read_only_tokens(b), P = v.pages.page_size;
    if (v.pages.row_begin != nullptr) {
      std::int64_t const r = v.pages.row_of(b, h), from = v.pages.row_begin[r], to = v.pages.row_begin[r + 1];
      if (from < 0 || from > to)
        return mine.take(watch, fault::page_offsets, b, h, from, to, static_cast<std::int32_t>(r));
    }
    if (n < 0)
      mine.take(watch, fault::negative_length, b, h, n, 0);
    else if (n > room_of(v, b, h))
      mine.take(watch, fault::length_beyond_table, b, h, n, room_of(v, b, h));
    else if (!v.pages.per_head() && n != v.length(b, 0))
      mine.take(watch, fault::lengths_differ, b, h, n, v.length(b, 0));
    else if (std::int32_t const first = v.length(v.pages.sequence_of(b), h);
             n != first && v.one_length_for_layers())
      mine.take(watch, fault::layers_differ, b, h, n, first);
    if (fixed < 0 || (fixed % P != 0 && fixed < n)) mine.take(watch, fault::read_only, b, h, fixed, P);
    bool const scattered = v.order == row_order::scattered;
    if (!sees.is_padding(sees.padding(b), static_cast<std::int32_t>(n), scattered))
      mine.take(watch, fault::padding, b, h, sees.padding(b), n, scattered);
    if constexpr (!std::is_same_v<Rows, no_rows>) check_rows(mine, b, h, n);
  }
  KVEVICT_DEVICE void check_rows(found& mine, std::int32_t b, std::int32_t h, std::int64_t n) const {
    row_places const in = rows.places();
    std::int64_t const from = in.first_row(b);
    if (in.row_count == nullptr && (from < 0 || in.descends(b)))
      return mine.take(watch, fault::row_begin, b, h, from, 0);
    std::int64_t const given = in.rows(b);
    if (from < 0 || given < 0) return mine.take(watch, fault::row_count, b, h, from, given);
    if (given > rows.most_rows) mine.take(watch, fault::most_rows, b, h, given, rows.most_rows);
    if (given == 0) return;
    std::int32_t heads = 1;
    std::int64_t head_stride = 0;
    if constexpr (!std::is_same_v<Rows, feature_rows>) heads = rows.heads, head_stride = rows.head_stride;
    if (!contract::ends_in_sequence(from + given - 1, heads, rows.token_stride, head_stride, rows.seq_stride))
      mine.take(watch, fault::rows_behind, b, h, from, given);
    if constexpr (!std::is_same_v<Rows, feature_rows>)
      if (!rows.has_data()) mine.take(watch, fault::no_data, b, h, 0, 0);
    if constexpr (std::is_same_v<Rows, attention_rows>)
      if (n > rows.slots) mine.take(watch, fault::softmax_slots, b, h, n, rows.slots);
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
