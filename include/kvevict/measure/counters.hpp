// SPDX-License-Identifier: Apache-2.0
// What an engine's metrics count of evictions.
#pragma once

#include <cstdint>

#include <kvevict/apply/compaction_result.hpp>
#include <kvevict/cache/keep_set.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Sums over evictions, never reset by the library: add a plan's keep set, and what became of it.
///
///   totals.add(keep), totals.add(done);      done: of compact, rewrite_table, drop_pages or relocate
///
/// Cost     O(rows) a keep set, O(1) a result; no allocation.
/// Errors   contract_violation: a keep set that was refused; a result that is none, or on a device not yet waited for.
///          Nothing is added then.
struct counters {
  std::int64_t plans = 0;           // keep sets
  std::int64_t cut_rows = 0;        // rows of them that lost a token
  std::int64_t kept_tokens = 0;     // of all rows, each KV head's for itself
  std::int64_t evicted_tokens = 0;  // the same
  std::int64_t moved_bytes = 0;     // by compact and relocate
  std::int64_t freed_pages = 0;     // entries of page tables; of relocate and drop_pages references

  void add(keep_set const& keep) {
    contract::expect_rows("counters", keep);
    for (std::int64_t r = 0; r < keep.rows(); ++r) {
      std::int64_t const lost = keep.lengths[static_cast<std::size_t>(r)] - keep.row(r).size;
      cut_rows += lost != 0, evicted_tokens += lost;
    }
    ++plans, kept_tokens += keep.kept();
  }
  template <class Entry> void add(compaction_result<Entry> const& done) {
    std::int64_t const pages = done.freed_pages().size;
    moved_bytes += done.bytes_moved(), freed_pages += pages;
  }
  /// Of a new table.
  template <class Result>
  requires requires(Result const& done) { done.released(); }
  void add(Result const& done) {
    freed_pages += done.released().size;
    if constexpr (requires { done.bytes_moved(); }) moved_bytes += done.bytes_moved();
  }
  /// Of several layers, threads or processes.
  void add(counters const& x) {
    plans += x.plans, cut_rows += x.cut_rows, kept_tokens += x.kept_tokens, evicted_tokens += x.evicted_tokens;
    moved_bytes += x.moved_bytes, freed_pages += x.freed_pages;
  }
};

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
