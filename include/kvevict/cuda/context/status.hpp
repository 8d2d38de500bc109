// SPDX-License-Identifier: Apache-2.0
// What kernels find wrong in a call: a word in device memory that stops every later kernel of the call, and a record of
// each sequence, of which the first becomes an exception where the host waits for what the call makes.
#pragma once

#include <cstdint>

#include <kvevict/core/fault.hpp>
#include <kvevict/core/raise.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Whether a call was refused, and why, in device memory.
struct call_status {
  std::uint32_t* raised = nullptr;  // 0: nothing; behind it how many calls were refused, where they are several
  fault_record* records = nullptr;  // (room); before the first the one that was taken over from another call
  std::int32_t room = 0;            // sequences; those beyond share them

  KVEVICT_HOST_DEVICE fault_record& taken_over() const { return records[-1]; }
};

/// What every kernel of the library is given first: the status of its call, whose word the launch that first finds
/// something wrong writes its number into; and that of its context, which keeps what was found since the last wait.
///
/// A kernel is stopped by the number of another launch, not by its own: so no copy of the word is needed, every thread
/// of a launch decides alike whatever the others write meanwhile, and all of them say what they find wrong.
struct watched : call_status {
  call_status all;                     // of the context
  call_status apart;                   // of a call that leaves sequences at fault out, or none
  std::int32_t of_layer, first_layer;  // sequences of a layer; its number
  std::uint32_t call;                  // number of the call, the context's in its upper bits
  bool makes_nothing;                  // that could carry what was taken over
  char const* verb = nullptr;          // of faults that several verbs have
  std::uint32_t launch = 0;            // number, not 0; of a captured graph the same again

  static constexpr std::uint32_t for_good = 0x80000000u, most_launches = for_good - 1;
  static constexpr std::uint32_t call_bits = 20;

  /// A kernel before this one failed, so that nothing may be read through the view, and nothing written.
  KVEVICT_DEVICE bool stopped(thread& t) const {
    std::uint32_t const by = atomic_load(t, raised);
    if (by == 0 || by == launch) return false;
    // so that the launch which raised it stops, too, when a graph is launched once more
    if (t.block().x == 0 && t.linear_index() == 0) atomic_compare_exchange(t, raised, by, for_good);
    return true;
  }
  KVEVICT_DEVICE void refuse(thread& t, fault kind, std::int32_t sequence, std::int32_t head, std::int64_t what = 0,
                             std::int64_t other = 0, std::int64_t token = 0, std::int32_t more = 0,
                             std::int32_t even_more = 0) const {
    refuse_of(t, verb, kind, sequence, head, what, other, token, more, even_more);
  }
  /// The same of a component, by its name.
  KVEVICT_DEVICE void refuse_of(thread& t, char const* component, fault kind, std::int32_t sequence, std::int32_t head,
                                std::int64_t what = 0, std::int64_t other = 0, std::int64_t token = 0,
                                std::int32_t more = 0, std::int32_t even_more = 0) const {
    fault_record const f = record_of(kind, sequence, head, what, other, token, more, even_more, component);
    if (apart.records != nullptr && is_of_sequence(kind)) return note(t, apart, f);
    raise(t, true);
    KVEVICT_KEEP_LOOP
    for (int i = 0; i < 2; ++i) note(t, i == 0 ? static_cast<call_status const&>(*this) : all, f);
  }
  /// An earlier kernel has found the sequence at fault, and the call goes on without it.
  KVEVICT_DEVICE bool left_out(std::int32_t sequence) const {
    return apart.records != nullptr && apart.records[sequence % apart.room].place != 0;
  }

  KVEVICT_DEVICE fault_record record_of(fault kind, std::int32_t sequence, std::int32_t head, std::int64_t what,
                                        std::int64_t other, std::int64_t token, std::int32_t more,
                                        std::int32_t even_more, char const* text) const {
    return {fault_record::place_of(kind, head, token),
            0,
            first_layer + sequence / of_layer,
            sequence,
            call,
            what,
            other,
            {more, even_more},
            text};
  }
  /// Stops the kernels behind this one; `counts`: this call is one more that was refused.
  KVEVICT_DEVICE void raise(thread& t, bool counts) const {
    if (atomic_compare_exchange(t, raised, 0u, launch) != 0) return;
    atomic_compare_exchange(t, all.raised, 0u, launch);
    if (counts) atomic_add(t, all.raised + 1, 1u);
  }
  /// The same for what another call was refused with. It counts where it is news to this context, and where only the
  /// context can tell.
  KVEVICT_DEVICE void raise_from(thread& t, fault_record const& f) const {
    bool const counts = makes_nothing || f.call >> call_bits != call >> call_bits;
    raise(t, counts);
    if (counts) note(t, all, f);
  }
  /// Into the records of a status: the earliest of a sequence's faults stays.
  KVEVICT_DEVICE static void note(thread& t, call_status const& to, fault_record const& f) {
    fault_record& r = to.records[f.sequence % to.room];
    std::uint64_t const place = f.place;
    if (atomic_max(t, &r.place, place) >= place) return;
    one_by_one(t, &r.turn, [&] {
      if (atomic_load(t, &r.place) != place) return;  // another one is earlier
      r.layer = f.layer, r.sequence = f.sequence, r.call = f.call, r.what = f.what, r.other = f.other;
      r.more[0] = f.more[0], r.more[1] = f.more[1], r.verb = f.verb;
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
    static_assert(
        requires { k.tile.c.watch; },
        "launch: the kernel has no `watched watch`; give it one from ctx.watch(), and let it begin with "
        "`if (watch.stopped(t)) return;`");
    return k.tile.c.watch;
  }
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
