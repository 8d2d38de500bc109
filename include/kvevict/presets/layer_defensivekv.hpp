// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/over_layers.hpp>
#include <kvevict/presets/defensivekv.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// defensivekv's tokens under one threshold for all layers and heads of a stack (page_table::layers): what any one of
/// the last `window` queries attends to most, wherever it is. A view of one layer is planned as by defensivekv.
/// LayerDefensiveKV, Feng et al. 2025.   Differs: see defensivekv and heads::over_layers; the floor is a share of the
/// budget of each head.
constexpr auto layer_defensivekv(defensivekv_options o = {}) {
  return defensivekv(o).with(heads::over_layers{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
