// SPDX-License-Identifier: Apache-2.0
// Everything that runs on a GPU: `kvevict::cuda::device ctx{stream}` in place of `kvevict::host`. For nvcc, with --expt-relaxed-constexpr.
#pragma once

#include <kvevict/version.hpp>

#include <kvevict/cuda/attention.hpp>
#include <kvevict/cuda/attention_rows.hpp>
#include <kvevict/cuda/compact.hpp>
#include <kvevict/cuda/count_above.hpp>
#include <kvevict/cuda/count_best.hpp>
#include <kvevict/cuda/device.hpp>
#include <kvevict/cuda/each.hpp>
#include <kvevict/cuda/gate.hpp>
#include <kvevict/cuda/keep_set.hpp>
#include <kvevict/cuda/multiply_by_share.hpp>
#include <kvevict/cuda/pool.hpp>
#include <kvevict/cuda/replace.hpp>
#include <kvevict/cuda/require_finite.hpp>
#include <kvevict/cuda/rows.hpp>
#include <kvevict/cuda/select_best.hpp>
#include <kvevict/cuda/slot_state.hpp>
#include <kvevict/cuda/squared_norms.hpp>
#include <kvevict/cuda/validate.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/presets/ada_pyramidkv.hpp>
#include <kvevict/presets/ada_snapkv.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/attention_gate.hpp>
#include <kvevict/presets/full.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/oracle.hpp>
#include <kvevict/presets/pyramidkv.hpp>
#include <kvevict/presets/random.hpp>
#include <kvevict/presets/snapkv.hpp>
#include <kvevict/presets/streaming_llm.hpp>
