// SPDX-License-Identifier: Apache-2.0
// Keep sets that do not fit are refused by both contexts in the same words, case by case.
#include "simt/same_words.hpp"

namespace same_words_keep_test {

using namespace simt_test;

TEST_CASE("both contexts say the same of keep sets") {
  auto const first = [](std::int32_t n, std::int32_t without = -1) {
    std::vector<std::int32_t> out;
    for (std::int32_t i = 0; i < n; ++i)
      if (i != without) out.push_back(i);
    return out;
  };
  room apart, shared(layout::hnd);
  auto const says = [&](auto& cache, std::vector<std::vector<std::int32_t>> const& rows, std::string const& compacted,
                        std::string const& replaced, std::int32_t stale = 0) {
    auto keep = keep_of(cache.view, rows);
    keep.lengths[3] -= stale;
    if (compacted != "-")
      for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
        alike(cache, "compact: " + compacted, [&](auto& on, auto const& view) { on.compact(view, keep, mode); });
    if (replaced != "-")
      alike(cache, "replace: " + replaced, [&](auto& on, auto const& view) { on.replace(view, keep); });
  };
  says(apart.cache, {first(40), first(39), first(30), first(29)},
       "sequence 1, head 1 has 30 tokens, but the keep set was planned for 29",
       "sequence 1, head 1 has 30 tokens, but the keep set was planned for 29", 1);
  std::vector<std::int32_t> disorder = first(29);
  std::swap(disorder[4], disorder[20]);
  says(apart.cache, {first(40), first(39), disorder, first(29)}, "the kept tokens of sequence 1, head 0",
       "the kept tokens of sequence 1, head 0");
  says(apart.cache, {first(40), first(30), first(29), first(29)}, "-", "sequence 0, head 1 evicts 10 tokens");
  says(shared.cache, {first(40), first(40), first(30), first(29)}, "heads 0 and 1 of sequence 1 keep 30 and 29 tokens",
       "heads 0 and 1 of sequence 1 keep 30 and 29 tokens");
  std::vector<std::int32_t> const fixed{0, 16};
  shared.cache.view.read_only = fixed.data();
  says(shared.cache, {first(40, 3), first(40, 3), first(30, 9), first(30, 9)},
       "the keep set drops a token of the read-only prefix of sequence 1, head 0 (16",
       "the keep set drops a token of the read-only prefix of sequence 1, head 0 (16");
  shared.cache.view.read_only = nullptr;
  for (std::int32_t c = 0; c < shared.cache.view.component_count; ++c)
    if (auto& it = shared.cache.view.components[static_cast<std::size_t>(c)]; it.what == role::state)
      it.rows.head_stride = 0;
  auto const keep = keep_of(shared.cache.view, {first(40, 3), first(40, 4), first(30), first(30)});
  alike(shared.cache, "move_rows: heads 0 and 1 of sequence 0 move different tokens, but component state",
        [&](auto& on, auto const& view) { on.compact(view, keep, kvevict::compaction::stable); });
  alike(shared.cache, "replace: heads 0 and 1 of sequence 0 evict different tokens, but component state",
        [&](auto& on, auto const& view) { on.replace(view, keep); });
  apart.cache.view.components[1].scope = kvevict::quant_scope::page_channel;
  says(apart.cache, {first(40), first(40), first(30, 4), first(30)},
       "component v is quantised per page and channel, so its tokens cannot move",
       "component v is quantised per page and channel, so a slot cannot take another token");
}

}  // namespace same_words_keep_test
