// SPDX-License-Identifier: Apache-2.0
// Whether a call was refused, beside what the call makes: whoever takes that looks here, in any context.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <kvevict/cuda/context/buffer.hpp>
#include <kvevict/cuda/context/status.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The status of one call at a time. A keep set has that of its plan, a ticket that of its compaction; they outlive the
/// context that made the call. The call's first kernel clears it, so that a graph's calls begin anew whenever it is
/// launched.
class verdict {
 public:
  /// What the host knows. Calls that are refused at once leave `refused`.
  enum class stage : std::uint8_t { no_call, refused, launched };

  stage at() const { return at_; }
  void set(stage s) { at_ = s; }
  /// Of the call that it is of now, see watched::call.
  std::uint32_t number() const { return number_; }
  void set_number(std::uint32_t number) { number_ = number; }
  call_status status() const {
    if (room_ == 0) return {};
    auto* const records = reinterpret_cast<fault_record*>(memory_.data());
    return {reinterpret_cast<std::uint32_t*>(records), records + 2, room_};
  }

  /// A record for each of that many sequences; what was found stays.   Errors  cuda_error, and it is as before.
  void expect_sequences(stream s, std::int32_t sequences) {
    sequences = std::max(sequences, 1);
    KVEVICT_EXPECTS(sequences <= 1 << 22, "validate: a view of ", sequences,
                    " sequences; a device keeps a record of each, provide fewer at once");
    if (sequences <= room_) return;
    buffer larger;
    larger.grow(s, (static_cast<std::size_t>(sequences) + 2) * sizeof(fault_record));
    fill_bytes(s, larger.data(), 0, larger.size());
    if (room_ != 0) copy_on_device(s, larger.data(), memory_.data(), memory_.size());
    std::swap(memory_, larger), room_ = sequences;
  }
  void clear(stream s) {
    if (room_ != 0) fill_bytes(s, memory_.data(), 0, memory_.size());
  }

  /// What the host finds of it once the stream has been waited for.
  class copy {
   public:
    copy(verdict const& of, stream s)
        : all_(of.at_ == stage::launched ? static_cast<std::size_t>(of.room_) + 2 : std::size_t{0}) {
      if (!all_.empty()) copy_to_host(s, all_.data(), of.memory_.data(), all_.size() * sizeof(fault_record));
    }
    /// The first sequence's first fault, or what was taken over; null where nothing was refused.
    fault_record const* first() const {
      std::uint32_t raised = 0;
      if (!all_.empty()) std::memcpy(&raised, all_.data(), sizeof raised);
      if (raised == 0) return nullptr;
      auto const found =
          std::find_if(all_.begin() + 1, all_.end() - 1, [](fault_record const& r) { return r.place != 0; });
      KVEVICT_EXPECTS(found->is_sound(),
                      "status: no call has written what is read; let the stream wait for the one that "
                      "the call was made in, by an event");
      return &*found;
    }
    /// Of a status that several calls have written into: the earliest call's, those that `untold` is true of before
    /// the others.
    template <class Untold> fault_record earliest(Untold untold) const {
      fault_record const* best = nullptr;
      for (auto r = all_.begin() + 1; r != all_.end(); ++r)
        if (r->place != 0 && (best == nullptr || (untold(*r) != untold(*best) ? untold(*r) : r->call < best->call)))
          best = &*r;
      return best == nullptr ? fault_record{} : *best;
    }

   private:
    std::vector<fault_record> all_;  // the words in the first one's place
  };

 private:
  buffer memory_;
  std::int32_t room_ = 0;
  std::uint32_t number_ = 0;
  stage at_ = stage::no_call;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
