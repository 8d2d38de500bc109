// SPDX-License-Identifier: Apache-2.0
// Where a call begins and ends: whose faults kernels find.
#pragma once

#include <cstdint>

#include <kvevict/cuda/context/device.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// From here to the end of its life, what kernels find wrong is a call's, whose status is `of`; until done() the call
/// counts as refused. `sequences` of `layers`, the first of which is number `first_layer`.
class device::call {
 public:
  call(device& ctx, verdict& of, std::int32_t sequences, std::int32_t layers, std::int32_t first_layer = 0,
       observed_states::memory const* reads = nullptr)
      : ctx_(ctx) {
    ctx.parents_.clear();
    ctx.first_layer_ = first_layer;
    if (ctx.is_dry()) return;
    of.set(verdict::stage::refused);
    ctx.expect_sequences(sequences, layers);
    of.expect_sequences(ctx.queue(), sequences);
    ctx.call_ = &of, ctx.sticky_ = false, ctx.number_ = ctx.next_number();
    of.set_number(ctx.number_);
    if (reads != nullptr) takes(*reads);
  }
  /// The same for what is observed into that state.
  call(device& ctx, observed_states::memory state, std::int32_t sequences, std::int32_t layers,
       std::int32_t first_layer)
      : call(ctx, ctx.is_dry() ? ctx.nameless_ : ctx.observed_.find(state, [&] { return ctx.next_number(); }).status,
             sequences, layers, first_layer) {
    if (ctx.is_dry()) return;
    ctx.sticky_ = true, ctx.number_ = ctx.observed_.number_of(*ctx.call_);
    takes(state);
  }
  call(call const&) = delete;
  call& operator=(call const&) = delete;
  ~call() { ctx_.call_ = nullptr, ctx_.first_layer_ = 0, ctx_.parents_.clear(); }
  void done() {
    if (ctx_.call_ != nullptr) ctx_.call_->set(verdict::stage::launched);
  }
  /// The call is refused where that one was, or what was observed into that state.
  void takes(verdict const& from) {
    if (!ctx_.is_dry() && from.at() == verdict::stage::launched) ctx_.parents_.push_back(from.status());
  }
  void takes(observed_states::memory state) {
    ctx_.observed_.each(state, [&](verdict const& from) {
      if (&from != ctx_.call_) ctx_.parents_.push_back(from.status());
    });
  }

 private:
  device& ctx_;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
