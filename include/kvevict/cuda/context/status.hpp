// SPDX-License-Identifier: Apache-2.0
// What kernels found wrong: a word in device memory that stops every later kernel, and a record of each sequence, of
// which the first becomes an exception where the host waits.
#pragma once

#include <cstdint>

#include <kvevict/core/fault.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// What every kernel of the library is given first: a word for the whole batch, in which the launch that first finds
/// something wrong writes its number, and a record of every sequence.
///
/// A kernel is stopped by the number of another launch, not by its own: so no copy of the word is needed, every thread
/// of a launch decides alike whatever the others write meanwhile, and all of them say what they find wrong.
struct watched {
  std::uint32_t* raised;        // 0: nothing
  fault_record* records;        // (room); sequences beyond share them
  std::int32_t room, of_layer;  // sequences
  char const* verb = nullptr;   // of faults that several verbs have
  std::uint32_t launch = 0;     // number, not 0; of a captured graph the same again

  static constexpr std::uint32_t for_good = 0x80000000u, most_launches = for_good - 1;

  /// A kernel before this one failed, so that nothing may be read through the view, and nothing written.
  KVEVICT_DEVICE bool stopped(thread& t) const {
    std::uint32_t const by = atomic_load(t, raised);
    if (by == 0 || by == launch) return false;
    // so that the launch which raised it stops, too, when a graph is launched once more
    if (t.block().x == 0 && t.linear_index() == 0) atomic_compare_exchange(t, raised, by, for_good);
    return true;
  }
  KVEVICT_DEVICE void refuse(thread& t, fault kind, std::int32_t sequence, std::int32_t head, std::int64_t what = 0,
                             std::int64_t other = 0, std::int64_t token = 0) const {
    atomic_compare_exchange(t, raised, 0u, launch);
    fault_record& r = records[sequence % room];
    std::uint64_t const place = fault_record::place_of(kind, head, token);
    if (atomic_max(t, &r.place, place) >= place) return;
    one_by_one(t, &r.turn, [&] {
      if (atomic_load(t, &r.place) != place) return;  // another one is earlier
      r.layer = sequence / of_layer, r.sequence = sequence, r.what = what, r.other = other, r.verb = verb;
    });
  }
};
/// Where a kernel keeps it: as its own, or in what it calls `c`, which all kernels of a call share, maybe by a `tile`.
template <class Kernel> watched& watch_of(Kernel& k) {
  if constexpr (requires { k.watch; })
    return k.watch;
  else if constexpr (requires { k.c; })
    return k.c.watch;
  else {
    static_assert(requires { k.tile.c.watch; },
                  "launch: the kernel has no `watched watch`; give it one from ctx.watch(), and let it begin with "
                  "`if (watch.stopped(t)) return;`");
    return k.tile.c.watch;
  }
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
