// SPDX-License-Identifier: Apache-2.0
// Where a verb begins and ends: whether what it was to fill means anything.
#pragma once

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What plan() returns in a context: the host's keep_set, unless the context brings its own in its own memory.
template <class Context> struct keep_sets { using type = keep_set; };
template <class Context> using keep_set_of = typename keep_sets<Context>::type;

/// A plan on the host: its keep set says that it is none from the first check to the last write, and then what it is
/// for.
template <class Entry> struct host_plan {
  layer_view<Entry> const& cache;
  keep_set& out;

  host_plan(layer_view<Entry> const& planned_on, keep_set& keep) : cache(planned_on), out(keep) { out.refused = true; }
  void done() { out.made_for = fingerprint_of(cache), out.refused = false; }
};
template <class Evidence> auto begin_call(host&, Evidence const& e, budget const&, keep_set& out) {
  return host_plan(e.cache, out);
}

namespace contract {

/// A context is told where a call begins: what is found wrong from there to done(), by kernels of a device later, is
/// that of the keep set that plan() fills, or of the state that observe() writes.
struct no_call {
  constexpr void done() const {}
};
template <class Context, class... Arguments> auto begin(Context& ctx, Arguments&... arguments) {
  if constexpr (requires { begin_call(ctx, arguments...); })
    return begin_call(ctx, arguments...);
  else
    return no_call{};
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
