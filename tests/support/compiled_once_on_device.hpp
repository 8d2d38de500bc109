// SPDX-License-Identifier: Apache-2.0
// The same for a device, under the emulation (see compiled_once.hpp).
#pragma once

#include <kvevict/cuda.cuh>

#include "support/compiled_once.hpp"

#define KVEVICT_ONCE_ON_DEVICE(form, Entry)                                                                      \
  namespace kvevict {                                                                                            \
  inline namespace KVEVICT_ABI {                                                                                 \
  namespace cuda {                                                                                               \
  form void kernel(kernels::window_scores_tag, device&, layer_view<Entry> const&, query_rows const&,             \
                   window_options const&, score_rows const&);                                                    \
  form void kernel(kernels::column_sums_tag, device&, layer_view<Entry> const&, query_rows const&, group_reduce, \
                   score_rows const&);                                                                           \
  form void kernel(kernels::squared_norms_tag, device&, layer_view<Entry> const&, component const&,              \
                   score_rows const&);                                                                           \
  form void kernel(kernels::update_state_tag, device&, layer_view<Entry> const&, component const&,               \
                   update_options const&, score_rows const&);                                                    \
  form void validate(device&, layer_view<Entry> const&);                                                         \
  }                                                                                                              \
  form void compact(cuda::device&, layer_view<Entry> const&, cuda::keep_set const&, compaction,                  \
                    cuda::compacted<Entry>&);                                                                    \
  }                                                                                                              \
  }

KVEVICT_ONCE_ON_DEVICE(extern template, std::int32_t)
KVEVICT_ONCE_ON_DEVICE(extern template, std::byte*)
