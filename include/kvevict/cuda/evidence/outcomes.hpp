// SPDX-License-Identifier: Apache-2.0
// plan and observe on a device that do not refuse all sequences for the fault of one.
#pragma once

#include <vector>

#include <kvevict/core/outcome.hpp>
#include <kvevict/cuda/context/keep_set.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/evidence/calls.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::leave_faulty_out_tag, device&);

/// What became of each sequence, in device memory: read after the call. It must outlive the call's kernels,
/// and go while the stream that it was made on lives.
class outcomes {
 public:
  /// Of every sequence of the last call; waits. What refused the whole call is told by the keep set, or the context.
  /// Without exceptions in the build a message says no more than that there is a fault.
  std::vector<outcome> read(device& ctx) const {
    ctx.expect_no_dry_run("outcomes");
    std::vector<fault_record> all(static_cast<std::size_t>(sequences_));
    if (sequences_ != 0) copy_to_host(ctx.queue(), all.data(), found_.status().records, all.size() * sizeof all[0]);
    synchronize(ctx.queue());
    std::vector<outcome> out;
    for (fault_record const& it : all) out.push_back(it.place == 0 ? outcome{} : told(it));
    return out;
  }

  /// Those of another call, in the stream's order.
  call_status begin(device& ctx, std::int32_t sequences) {
    if (ctx.is_dry()) return {};
    sequences_ = sequences;
    found_.expect_sequences(ctx.queue(), sequences), found_.clear(ctx.queue());
    return found_.status();
  }

 private:
  static outcome told(fault_record const& it) {
#if KVEVICT_EXCEPTIONS
    try {
      raise(it);
    } catch (contract_violation const& fault) {
      return outcome::of(fault);
    }
#else
    return {it.layer, it.sequence, it.head(), -1, "a fault that a build without exceptions cannot name"};
#endif
  }

  verdict found_;
  std::int32_t sequences_ = 0;
};

/// Rows of sequences at fault become rows that are kept whole. One thread per row.
///
/// Shapes   outcomes (B) → rows (B·H).
struct leave_faulty_out_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  score_rows out;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (r >= out.count() || watch.stopped(t) || !watch.left_out(out.rows[r].sequence)) return;
    row& it = out.rows[r];
    it.active = false, it.budget = it.tokens, it.candidates = it.tokens, it.first = 0, it.last = it.tokens;
  }
};
/// Nothing where faults refuse the call.
inline void kernel(kernels::leave_faulty_out_tag, device& ctx, score_rows const& out) {
  if (ctx.leaves_faulty_out())
    ctx.launch({blocks_for(out.count(), 128)}, {128}, 0, leave_faulty_out_kernel{ctx.watch(), out});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

namespace kvevict {
inline namespace KVEVICT_ABI {

/// kvevict::plan without refusing all sequences for one: see the host's, which has the same words. outcomes.read(ctx)
/// says what became of each, once the stream has been waited for; the keep set is whole where one is at fault. What is
/// wrong with the view, the options or where evidence lies refuses the call, and so do layers that keep one set.
/// Cost     plan()'s; two small kernels and a fill more.
template <class Policy, class Evidence>
void plan(cuda::device& ctx, Policy const& p, Evidence const& e, budget const& b, cuda::keep_set& out,
          cuda::outcomes& outcomes) {
  contract::expect_types<cuda::device, Policy, Evidence>();
  contract::expect_stages<cuda::device, Policy, Evidence>();
  static_assert(
      !stages::says_one_set<decltype(p.layers)>,
      "plan with outcomes: under layers::together the fault of one layer is that of all, which a device finds "
      "too late to leave them out; plan without outcomes");
  auto call = contract::begin(ctx, e, b, out);
  KVEVICT_EXPECTS(
      e.cache.pages.layers == 1 || !(e.cache.demands().one_set_for_layers || e.cache.demands().equal_layers),
      "plan with outcomes: the cache keeps one set of tokens, or as many, for all layers, so that the fault of one "
      "layer "
      "is that of all, which a device finds too late to leave them out; plan without outcomes");
  cuda::device::apart const one_by_one(ctx, outcomes.begin(ctx, e.cache.sequences()));
  contract::validate("plan", ctx, p, e, b);
  planning::plan_checked(ctx, p, e, b, out);
  call.done();
}

/// The same of observe: the state of a sequence at fault stays as it is. A gate's memory has been written where one of
/// its probabilities is not a number.
template <class Policy, class Evidence>
void observe(cuda::device& ctx, Policy const& p, Evidence const& e, budget const& b, cuda::outcomes& outcomes) {
  static_assert(
      requires { p.score.state_floats(); },
      "observe: this policy's score keeps no state; it can be planned from a prompt alone");
  contract::expect_types<cuda::device, Policy, Evidence>();
  auto call = contract::begin(ctx, e, b, p);
  cuda::device::apart const one_by_one(ctx, outcomes.begin(ctx, e.cache.sequences()));
  contract::validate("observe", ctx, p, e, b, page_use::written);
  planning::observe_checked(ctx, p, e, b);
  call.done();
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
