// SPDX-License-Identifier: Apache-2.0
// What every verb checks of what it is given, in types and in values.
#pragma once

#include <kvevict/core/host.hpp>
#include <kvevict/evidence/planning.hpp>
#include <kvevict/evidence/state.hpp>
#include <kvevict/evidence/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// What a verb is given is what it says.
template <class Context, class Policy, class Evidence> constexpr void expect_types() {
  static_assert(
      requires(Context & ctx) { frame(ctx.scratch()); },
      "the first argument is no context; give a kvevict::host or a kvevict::cuda::device");
  static_assert(
      requires { Policy::budgets; },
      "the second argument is no policy; give a preset, or policy{score, protect} of your own");
  static_assert(evidence_of_cache<Evidence>,
                "the third argument is no evidence; give contents(cache), prompt(cache, queries), step(cache, queries) "
                "or remembered(cache)");
}

/// Everything that can be checked before the rows are made. `plan` reads the cache, `observe` writes states into it.
template <class Context, class Policy, class Evidence>
void validate(char const* verb, Context& ctx, Policy const& p, Evidence const& e, budget const& b,
              page_use use = page_use::read) {
  kernels::validate(ctx, e, use);
  planning::expect_options(verb, ctx, p, b, e.cache.pages.layers, e.cache.heads());
  KVEVICT_EXPECTS(p.protect.sinks == 0 || e.sees.first_token == nullptr, verb, ": the policy protects the first ",
                  p.protect.sinks,
                  " slots of a sequence, and those before visibility::first_token are padding, which "
                  "would stay in the place of tokens; give .sinks = 0, or a view whose rows begin with a token");
  if constexpr (has<Evidence, facts::state> && requires { p.score.state_floats(); })
    state_of("plan", e.cache, p.score.state_floats());
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
