// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/over_layers.hpp>
#include <kvevict/presets/distinct_and_attended.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// distinct_and_attended with one threshold of each share for all layers and heads of a stack (page_table::layers),
/// above a floor of every head: cosines and attention compare over layers. A view of one layer is planned as by
/// distinct_and_attended.
/// Ours: to be measured by bench/quality.
constexpr auto layer_distinct_and_attended(distinct_and_attended_options o = {}) {
  return distinct_and_attended(o).with(heads::over_layers{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
