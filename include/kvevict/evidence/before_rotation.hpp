// SPDX-License-Identifier: Apache-2.0
// The keys of evidence before their rotation, for scores.
#pragma once

#include <kvevict/cache/unrotated_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The rows of component `of` before rotation, as elements for reductions and as readers for functions of tokens. Where
/// nothing turned them they are the cache's own.
///
///   auto const k = before_rotation("my_score", ctx, scratch, e, readable("my_score", e.cache, role::k));
///   kernels::row_sums(ctx, out, token_groups{}, D, k, sums);      … k.reader(row).dot(token, vector) …
///
/// Cost     scratch 4·width bytes, which lives as long as `scratch` does; on a device one small launch.
/// Errors   contract_violation: something opaque turned them; nobody says what did; no rope, or one that does not fit.
template <class Context, class Evidence>
auto before_rotation(char const* who, Context& ctx, frame& scratch, Evidence const& e, component const& of,
                     std::int32_t first_position = 0) {
  contract::expect_turned(who, of, e.turned_by);
  KVEVICT_EXPECTS(first_position >= 0, who, ": slot 0 is at position ", first_position,
                  "; give 0 or more, or a position component");
  turning by;
  if (of.turned_by == rotation::rope) {
    by.width = e.turned_by.width_in(static_cast<std::int32_t>(of.width())), by.pairs = e.turned_by.pairs;
    by.undo = static_cast<float>(1 / e.turned_by.amplitude()), by.first_position = first_position;
    auto* const steps = scratch.template allocate<std::uint64_t>(by.count());
    kernels::rope_steps(ctx, e.turned_by, by.width, steps);
    by.steps = steps;
  }
  return unrotated_elements{e.cache, of, by};
}

/// Scratch that it takes.
constexpr std::int64_t before_rotation_bytes(cache_shape const& s) {
  return scratch_step(4 * std::int64_t{s.head_dim});
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
