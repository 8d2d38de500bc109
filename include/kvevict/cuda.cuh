// SPDX-License-Identifier: Apache-2.0
// Everything that runs on a GPU: `kvevict::cuda::device ctx{stream}` in place of `kvevict::host`. For nvcc, with
// -std=c++20 --expt-relaxed-constexpr; without --use_fast_math or -ftz=true, under which scores differ from the host's
// (nvcc defines no macro for them, so nothing refuses them).
#pragma once

#if __cplusplus < 202002L
#error "kvevict: cuda.cuh needs C++20: add -std=c++20"
#elif defined(__NVCC__) && !defined(__CUDACC_RELAXED_CONSTEXPR__)
#error "kvevict: kernels call constexpr functions of the host: add --expt-relaxed-constexpr"
#else

#include <kvevict/version.hpp>

#include <kvevict/cuda/apply/compact.hpp>
#include <kvevict/cuda/apply/relocate.hpp>
#include <kvevict/cuda/apply/replace.hpp>
#include <kvevict/cuda/apply/rerotate.hpp>
#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/fold_window.hpp>
#include <kvevict/cuda/attention/softmax_rows.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/keep_set.hpp>
#include <kvevict/cuda/evidence/calls.hpp>
#include <kvevict/cuda/evidence/new_rows.hpp>
#include <kvevict/cuda/evidence/outcomes.hpp>
#include <kvevict/cuda/evidence/query_ring.hpp>
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/cuda/evidence/same_tokens.hpp>
#include <kvevict/cuda/evidence/validate.hpp>
#include <kvevict/cuda/gate/gate.hpp>
#include <kvevict/cuda/scores/channel_spreads.hpp>
#include <kvevict/cuda/scores/direction_sums.hpp>
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/gram.hpp>
#include <kvevict/cuda/scores/inverse_cholesky.hpp>
#include <kvevict/cuda/scores/mapped_sums.hpp>
#include <kvevict/cuda/scores/multiply_by_share.hpp>
#include <kvevict/cuda/scores/pool.hpp>
#include <kvevict/cuda/scores/require_finite.hpp>
#include <kvevict/cuda/scores/rope_steps.hpp>
#include <kvevict/cuda/scores/row_products.hpp>
#include <kvevict/cuda/scores/row_reductions.hpp>
#include <kvevict/cuda/scores/slot_state.hpp>
#include <kvevict/cuda/scores/squared_norms.hpp>
#include <kvevict/cuda/select/best_over_ranks.hpp>
#include <kvevict/cuda/select/count_above.hpp>
#include <kvevict/cuda/select/count_best.hpp>
#include <kvevict/cuda/select/cut_scores.hpp>
#include <kvevict/cuda/select/expect_shares.hpp>
#include <kvevict/cuda/select/mark_kept.hpp>
#include <kvevict/cuda/select/score_histograms.hpp>
#include <kvevict/cuda/select/select_best.hpp>
#include <kvevict/cuda/select/select_pages.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/heads/over_layers.hpp>
#include <kvevict/heads/over_ranks.hpp>
#include <kvevict/heads/table.hpp>
#include <kvevict/layers/dispersion.hpp>
#include <kvevict/layers/entropy.hpp>
#include <kvevict/layers/table.hpp>
#include <kvevict/presets/all.hpp>
#include <kvevict/score/pooled.hpp>
#include <kvevict/score/running_diversity.hpp>

#endif
