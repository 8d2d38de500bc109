// SPDX-License-Identifier: Apache-2.0
// What most tests call for both kinds of page table, compiled once (compiled_once.cpp) instead of in every file. Part
// of the precompiled headers alone: a test that is compiled without them makes its own.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/layouts.hpp"

#define KVEVICT_ONCE(form, Entry)                                                                                    \
  namespace kvevict {                                                                                                \
  inline namespace KVEVICT_ABI {                                                                                     \
  namespace kernels {                                                                                                \
  form void kernel(window_scores_tag, host&, layer_view<Entry> const&, query_rows const&, window_options const&,     \
                   score_rows const&);                                                                               \
  form void kernel(window_scores_tag, host&, layer_view<Entry> const&, attention_rows const&, window_options const&, \
                   score_rows const&);                                                                               \
  form void kernel(column_sums_tag, host&, layer_view<Entry> const&, query_rows const&, group_reduce,                \
                   score_rows const&);                                                                               \
  form void kernel(column_sums_tag, host&, layer_view<Entry> const&, attention_rows const&, group_reduce,            \
                   score_rows const&);                                                                               \
  form void kernel(squared_norms_tag, host&, layer_view<Entry> const&, component const&, score_rows const&);         \
  form void kernel(update_state_tag, host&, layer_view<Entry> const&, component const&, update_options const&,       \
                   score_rows const&);                                                                               \
  form void kernel(move_rows_tag, host&, layer_view<Entry> const&, move_plan const&);                                \
  }                                                                                                                  \
  form void validate(layer_view<Entry> const&, arena&, page_use);                                                    \
  form void compact(host&, layer_view<Entry> const&, keep_set const&, compaction, compacted<Entry>&);                \
  }                                                                                                                  \
  }                                                                                                                  \
  namespace layouts {                                                                                                \
  form class cache<Entry>;                                                                                           \
  }

KVEVICT_ONCE(extern template, std::int32_t)
KVEVICT_ONCE(extern template, std::byte*)
