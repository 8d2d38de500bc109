// SPDX-License-Identifier: Apache-2.0
// All host kernels.
#pragma once

#include <kvevict/kernels/attention_rows.hpp>
#include <kvevict/kernels/channel_spreads.hpp>
#include <kvevict/kernels/column_sums.hpp>
#include <kvevict/kernels/count_above.hpp>
#include <kvevict/kernels/count_best.hpp>
#include <kvevict/kernels/cut_scores.hpp>
#include <kvevict/kernels/direction_sums.hpp>
#include <kvevict/kernels/each.hpp>
#include <kvevict/kernels/expect_shares.hpp>
#include <kvevict/kernels/fold_window.hpp>
#include <kvevict/kernels/gate.hpp>
#include <kvevict/kernels/gram.hpp>
#include <kvevict/kernels/inverse_cholesky.hpp>
#include <kvevict/kernels/mapped_sums.hpp>
#include <kvevict/kernels/mark_kept.hpp>
#include <kvevict/kernels/move_rows.hpp>
#include <kvevict/kernels/multiply_by_share.hpp>
#include <kvevict/kernels/newest_sums.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/require_finite.hpp>
#include <kvevict/kernels/rope_steps.hpp>
#include <kvevict/kernels/row_products.hpp>
#include <kvevict/kernels/row_reductions.hpp>
#include <kvevict/kernels/score_histograms.hpp>
#include <kvevict/kernels/select_best.hpp>
#include <kvevict/kernels/select_pages.hpp>
#include <kvevict/kernels/slot_state.hpp>
#include <kvevict/kernels/squared_norms.hpp>
#include <kvevict/kernels/window_scores.hpp>
#include <kvevict/kernels/workspace.hpp>
