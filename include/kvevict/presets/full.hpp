// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/without_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Keeps everything; the budget is not looked at.
/// The bound above: every comparison needs it.
constexpr auto full() { return policy{score::none{}}.with(layers::unlimited{}); }

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
