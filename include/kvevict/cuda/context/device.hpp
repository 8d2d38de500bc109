// SPDX-License-Identifier: Apache-2.0
// The device context: a stream, scratch in device memory, and what went wrong.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <kvevict/core/host.hpp>
#include <kvevict/core/raise.hpp>
#include <kvevict/cuda/context/dry_run.hpp>
#include <kvevict/cuda/context/observed_states.hpp>
#include <kvevict/cuda/context/scratch_memory.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// First argument of every verb on a GPU. All memory of views, evidence and keep sets is device memory; kernels are put
/// into the stream and never waited for.
///
/// Scratch comes from the stream's allocator and only grows; after `reserve(try_out(…).scratch_bytes)`, or the second
/// call of a size, no verb allocates. A context that was given a buffer takes scratch from there alone, all of it one
/// block: `scratch_bytes` are enough, whichever calls came before.
/// A captured graph keeps the addresses of scratch, keep sets and results: while it lives, make no call with this
/// context, into that keep set or result that needs more than they had when it was captured.
/// Errors   what kernels find wrong belongs to the call that found it. It stops that call's later kernels; the calls
///          that take what it would have made (a keep set; after observe() the state) are refused with it, in any
///          context where it is a keep set, in this one where it is the state. Other calls are not touched. The keep
///          set's `read` and the ticket's `wait` raise it; so does `wait` here, of what they have not told. Launches
///          raise cuda_error at once.
class device {
 public:
  explicit device(stream s) : device(s, nullptr, 0) {}
  /// Scratch inside [buffer, buffer + bytes), device memory that the caller owns and that is aligned to 256 bytes.
  device(stream s, void* buffer, std::size_t bytes) : memory_{s, static_cast<std::byte*>(buffer), bytes} {
    KVEVICT_EXPECTS((buffer != nullptr || bytes == 0) && reinterpret_cast<std::uintptr_t>(buffer) % 256 == 0,
                    "device: a buffer of ", bytes,
                    " bytes is null or not aligned to 256 bytes; align it, or give none");
    memory_.scratch = &scratch_;
    if (buffer != nullptr) scratch_.reserve(bytes);
    own_.set(verdict::stage::launched);
    expect_sequences(64, 1);
  }
  device(device const&) = delete;
  device& operator=(device const&) = delete;

  std::size_t block_shared_bytes() const { return block_shared_bytes_; }
  stream queue() const { return memory_.from; }
  arena& scratch() { return scratch_; }
  void reserve(std::size_t bytes) {
    if (memory_.buffer == nullptr || is_dry()) return scratch_.reserve(bytes);
    KVEVICT_EXPECTS(bytes <= memory_.bytes, "device: ", bytes, " bytes are to be reserved and the buffer has ",
                    memory_.bytes, "; lend as many, or let the context take its own");
  }
  watched watch(char const* verb = nullptr) const {
    return {(call_ == nullptr ? direct_ : *call_).status(),
            own_.status(),
            apart_,
            of_layer_,
            first_layer_,
            call_ == nullptr ? 0 : number_,
            call_ == &nameless_,
            verb};
  }
  /// A record for each of the sequences of a view, those of all its layers. Every verb says so before it launches.
  void expect_sequences(std::int32_t sequences, std::int32_t layers) {
    of_layer_ = std::max(1, sequences / std::max(1, layers));
    if (is_dry()) return;
    own_.expect_sequences(queue(), sequences);
    (call_ == nullptr ? direct_ : *call_).expect_sequences(queue(), sequences);
  }

  /// Every launch has a number of its own, by which its kernel knows its own faults.
  template <class Kernel> void launch(extent grid, extent block, std::size_t shared, Kernel kernel) {
    if (volume(grid) == 0) return;
    watch_of(kernel).launch = launched_ = launched_ % watched::most_launches + 1;
    if (dry_ != nullptr)
      dry_->steps.push_back({dry_run::kind::launch, name_of_kernel<Kernel>(), grid, block, shared});
    else
      cuda::launch(queue(), grid, block, shared, kernel);
  }
  void copy(char const* name, void* to, void const* from, std::size_t bytes) const {
    if (bytes == 0) return;
    if (dry_ != nullptr)
      dry_->steps.push_back({dry_run::kind::copy, name, {}, {}, bytes});
    else
      copy_on_device(queue(), to, from, bytes);
  }
  void zero(char const* name, void* p, std::size_t bytes) const {
    if (bytes == 0) return;
    if (dry_ != nullptr)
      dry_->steps.push_back({dry_run::kind::fill, name, {}, {}, bytes});
    else
      fill_bytes(queue(), p, 0, bytes);
  }
  bool is_dry() const { return dry_ != nullptr; }
  void expect_no_dry_run(char const* verb) const {
    KVEVICT_EXPECTS(!is_dry(), verb,
                    ": this is a dry run, in which nothing runs and nothing is read; leave the call out");
  }

  /// Waits for the stream; raises contract_violation if a kernel since the last wait has refused its input and no keep
  /// set and no ticket has said so here: the first call's, of its sequences the first. Nothing was written or moved by
  /// that call and those that take what it makes; what the others did is done.
  void wait() {
    expect_no_dry_run("wait");
    std::uint32_t words[2] = {0, 0};  // whether, and how many calls
    copy_to_host(queue(), words, own_.status().raised, sizeof words);
    synchronize(queue());
    if (words[0] == 0) return;
    verdict::copy const found(own_, queue());
    synchronize(queue());
    own_.clear(queue()), direct_.clear(queue());
    observed_.clear(queue(), 0);
    std::vector<std::uint32_t> const told = std::move(told_);
    told_.clear();
    if (words[1] <= told.size()) return;
    raise(found.earliest(
        [&](fault_record const& r) { return std::find(told.begin(), told.end(), r.call) == told.end(); }));
  }
  /// Waits for what the call that is under way has put into the stream; raises what it was refused with, or what wait()
  /// does where there is none.
  void finish() {
    if (call_ == nullptr) return wait();
    call_->set(verdict::stage::launched);
    verdict::copy const found(*call_, queue());
    synchronize(queue());
    if (fault_record const* const f = found.first()) tell(*f, number_);
  }
  /// Raises what a call of that number was refused with, so that `wait` need not.
  [[noreturn]] void tell(fault_record const& f, std::uint32_t number) {
    bool const own = f.call >> watched::call_bits == context_;
    if (own) told(f.call), observed_.clear(queue(), f.call);
    if (!own || number == nameless_.number()) told(number);
    raise(f);
  }

  /// What `call(ctx)` would do: the call is made with a context that launches nothing and whose memory does not exist.
  /// Nothing outside is written; what only a real run can give (`wait`, `read`, `assign`, `scores`) is refused.
  template <class Call> static dry_run try_out(stream s, Call&& call) {
    dry_run out;
    device ctx(s, out);
    call(ctx);
    out.scratch_bytes = ctx.scratch_.high_water();
    return out;
  }

  class call;  // context/call.hpp
  /// As long as it lives, faults of single sequences go there and stop nothing.
  class apart {
   public:
    apart(device& ctx, call_status to) : ctx_(ctx) { ctx.apart_ = to, ctx.leaves_faulty_out_ = true; }
    apart(apart const&) = delete;
    apart& operator=(apart const&) = delete;
    ~apart() { ctx_.apart_ = {}, ctx_.leaves_faulty_out_ = false; }

   private:
    device& ctx_;
  };
  bool leaves_faulty_out() const { return leaves_faulty_out_; }
  bool is_calling(verdict const& of) const { return call_ == &of; }
  /// Of calls that make nothing that could carry it.
  verdict& nameless() { return nameless_; }
  std::vector<call_status> const& parents() const { return parents_; }
  /// Whether the call's first kernel leaves what was found before.
  bool is_sticky() const { return call_ == nullptr || sticky_; }

  observed_states& observed() { return observed_; }
  dry_keep_sets& dry_rows() { return dry_rows_; }

 private:
  device(stream s, dry_run& out) : memory_{s, nullptr, 0}, dry_(&out) { memory_.dry = true; }

  /// Of a call that was refused here, in the stream's order or at once.
  void told(std::uint32_t number) {
    if (number >> watched::call_bits == context_ && std::find(told_.begin(), told_.end(), number) == told_.end())
      told_.push_back(number);
  }
  std::uint32_t next_number() {
    constexpr std::uint32_t most = (1u << watched::call_bits) - 1;
    return context_ << watched::call_bits | (calls_ = calls_ % most + 1);
  }
  static std::uint32_t next_context() {
    static std::atomic<std::uint32_t> contexts{0};
    return contexts.fetch_add(1, std::memory_order_relaxed) % (1u << (32 - watched::call_bits));
  }
  scratch_memory memory_;
  arena scratch_{memory_.source()};
  verdict own_;                // what all calls were refused with since the last wait
  verdict direct_, nameless_;  // of kernels outside of calls; of a call that makes nothing
  verdict* call_ = nullptr;
  std::vector<call_status> parents_;
  observed_states observed_;
  std::vector<std::uint32_t> told_;  // calls
  std::uint32_t context_ = next_context(), calls_ = 0, number_ = 0, launched_ = 0;
  std::int32_t of_layer_ = 1, first_layer_ = 0;  // sequences of a layer
  bool sticky_ = false, leaves_faulty_out_ = false;
  call_status apart_{};
  dry_run* dry_ = nullptr;
  dry_keep_sets dry_rows_;
  std::size_t block_shared_bytes_ = most_shared_bytes();
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
