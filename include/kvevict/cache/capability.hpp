// SPDX-License-Identifier: Apache-2.0
// What a cache can follow: which keep sets an engine can turn into what it does to its cache.
#pragma once

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a keep set must be for this cache; `plan` refuses a policy that does not fit, before anything is scored. By
/// default nothing is demanded but what the view shows:
///
///   a page table that all heads share                          equal_counts
///   a component with one row for all heads (head_stride 0)     one_set_for_heads
///   positions with one row for all layers (layer_stride 0)     one_set_for_layers
///   scales that cover a page (quant_scope::page_channel)       whole_pages
///   tokens that do not move, in a table that heads share       one_set_for_heads; that layers share: for_layers
///
/// An engine that makes masks of keep sets says `masked`: then the view demands nothing.
struct capability {
  bool one_set_for_heads = false;   // all heads of a sequence keep the same tokens
  bool one_set_for_layers = false;  // all layers of a sequence do
  bool equal_counts = false;        // all heads of a sequence keep equally many
  bool whole_pages = false;         // a page stays as it is, or goes
  bool rows_move = true;            // false: tokens stay in their slots, so that pages larger than a token go whole
  bool newest_stays = false;        // the newest token is never evicted
  bool masked = false;              // the engine hides what is not kept, and moves nothing
  bool equal_layers = false;        // all layers keep equally many: the engine has one length for them
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
