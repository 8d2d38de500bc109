// SPDX-License-Identifier: Apache-2.0
// A fault belongs to a sequence: where it lies is known in every layer, and the others go on without it.
#pragma once

#include <vector>

#include <kvevict/core/host.hpp>
#include <kvevict/core/outcome.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/evidence/evidence.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// f(); what it raises says in which layer of the model, too.
template <class Entry, class F> void with_layers(layer_view<Entry> const& cache, budget const& b, F f) {
#if KVEVICT_EXCEPTIONS
  try {
    f();
  } catch (contract_violation& fault) {
    std::int32_t const layers = cache.pages.layers, B = cache.sequences();
    bool const is_stack = layers > 1 && B >= layers && B % layers == 0;
    if (fault.sequence >= 0 && fault.layer < 0) fault.layer = b.layer + (is_stack ? fault.sequence / (B / layers) : 0);
    throw;
  }
#else
  static_cast<void>(cache), static_cast<void>(b);
  f();
#endif
}

/// The evidence without the rows of sequences that are kept whole, where a kernel reads rows whether a sequence is
/// scored or not.
template <class Evidence> Evidence without_whole(Evidence e, [[maybe_unused]] budget const& b) {
  if constexpr (has<Evidence, facts::features>) e.input.whole = b.whole;
  return e;
}

/// f(evidence, budget) until no sequence is at fault that is not left out: `outcomes` (B) says which are, and why. What
/// belongs to no sequence is raised. Once for every faulty sequence more; nothing may have been written when f raises.
/// `layers_as_one`: a fault in one layer of a sequence is that of all its layers, which cannot be left out one by one.
template <class Context, class Evidence, class F>
void leave_faulty_out(Context& ctx, Evidence const& e, budget b, std::vector<outcome>& outcomes, bool layers_as_one,
                      F f) {
  std::int32_t const B = e.cache.sequences(), step = layers_as_one ? B / e.cache.pages.layers : B;
  outcomes.assign(static_cast<std::size_t>(B), {});
  frame scratch(ctx.scratch());
  auto* const whole = scratch.template allocate<std::uint8_t>(B);
  for (std::int32_t i = 0; i < B; ++i) whole[i] = b.keeps_whole(i);
  b.whole = whole;
#if KVEVICT_EXCEPTIONS
  for (;;) try {
      with_layers(e.cache, b, [&] { f(e, b); });
      return;
    } catch (contract_violation const& fault) {
      if (fault.sequence < 0 || fault.sequence >= B || whole[fault.sequence] != 0) throw;
      for (std::int32_t row = fault.sequence % step; row < B; row += step)
        whole[row] = 1, outcomes[static_cast<std::size_t>(row)] = outcome::of(fault);
    }
#else
  static_cast<void>(step);
  f(e, b);
#endif
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
