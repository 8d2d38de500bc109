// SPDX-License-Identifier: Apache-2.0
// Which keys a score of keys reads.
#pragma once

#include <cstdint>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/before_rotation.hpp>
#include <kvevict/evidence/evidence.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Which keys a score reads: as they lie in the cache, or as they were before their rotation.
/// Of keys in two parts (MLA: a latent one in role::k, a rotary one in role::rope) the first, which says what a token
/// is; where one component holds both, all of it.
enum class keys : std::uint8_t { cached, unrotated };

/// f(elements) of those keys, for reductions and functions of tokens: elements(row, token, first, x),
/// elements.reader(row), elements.of.width().
/// Cost     of unrotated keys scratch as long as f runs: keys_bytes.
/// Errors   contract_violation: no keys, or none that can be read; of unrotated ones see before_rotation.
template <class Context, class Evidence, class F>
void with_keys(char const* who, keys which, Context& ctx, Evidence const& e, F&& f) {
  component const& k = readable(who, e.cache, role::k);
  if (which == keys::cached) return with_elements(e.cache, k, f);
  frame scratch(ctx.scratch());
  f(before_rotation(who, ctx, scratch, e, k));
}
constexpr std::int64_t keys_bytes(keys which, cache_shape const& s) {
  return which == keys::cached ? 0 : before_rotation_bytes(s);
}

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
