// SPDX-License-Identifier: Apache-2.0
// What a plan returns on a device: the tokens that stay, in device memory.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cuda/context/buffer.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/policy.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// Rows of ascending slots. Owns its memory, which only grows; `plan(…, out)` reuses it. It must go, or be
/// planned into again, on the stream that it was made on. Another stream may use it behind an event.
///
/// It carries whether its plan was refused: every verb that takes it is refused then, too, in any context, whether or
/// not anybody has waited.
class keep_set : public keep_arrays {
 public:
  keep_set() = default;
  keep_set(keep_set&& other) noexcept { swap(other); }
  keep_set& operator=(keep_set&& other) noexcept { return swap(other), *this; }

  std::uint64_t epoch = 0;  // layer_view::epoch of the plan, see fingerprint; pages are not compared on a device

  /// Makes room for rows of up to `most` tokens, and says where. A dry run only says.
  keep_arrays resize(device& ctx, std::int32_t b, std::int32_t h, std::int64_t most) {
    std::int64_t const n = std::int64_t{b} * h, before = (n + 3) / 4 * 4, wide = (most + 3) / 4 * 4;
    auto const bytes = static_cast<std::size_t>(2 * before + n * wide) * 4;
    keep_arrays to{b, h, wide};
    if (ctx.is_dry()) return ctx.dry_rows().set(*this, to), to;
    bool const fresh = bytes > memory_.size() || n != rows();
    memory_.grow(ctx.queue(), bytes);
    if (fresh)
      fill_bytes(ctx.queue(), memory_.data(), 0,
                 static_cast<std::size_t>(2 * before) * 4);  // nobody reads what nobody has written
    if (!ctx.is_calling(status_)) status_.set(verdict::stage::no_call);
    to.counts = reinterpret_cast<std::int32_t*>(memory_.data());
    to.lengths = to.counts + before;
    to.tokens = to.lengths + before;
    return static_cast<keep_arrays&>(*this) = to;
  }

  /// A copy for the host; waits.
  /// Errors   contract_violation as the plan that was to fill it; counts that are none of its rows' (it was written in
  ///          another stream, and no event lies between). The same every time.
  kvevict::keep_set read(device& ctx) const {
    ctx.expect_no_dry_run("read");
    expect_planned("read");
    kvevict::keep_set out;
    auto const n = static_cast<std::size_t>(rows()), wide = static_cast<std::size_t>(stride);
    std::vector<std::int32_t> of_rows(2 * n), kept(n * wide);
    verdict::copy const found(status_, ctx.queue());
    copy_to_host(ctx.queue(), of_rows.data(), counts, n * 4);
    copy_to_host(ctx.queue(), of_rows.data() + n, lengths, n * 4);
    copy_to_host(ctx.queue(), kept.data(), tokens, n * wide * 4);
    if (status_.at() == verdict::stage::no_call)
      ctx.wait();
    else
      synchronize(ctx.queue());
    if (fault_record const* const f = found.first()) ctx.tell(*f, status_.number());
    out.sequences = sequences, out.heads = heads, out.made_for.epoch = epoch;
    out.row_begin.assign(1, 0);
    for (std::size_t r = 0; r < n; ++r) {
      std::int32_t const count = of_rows[r], length = of_rows[n + r];
      KVEVICT_EXPECTS(count >= 0 && count <= length && count <= stride, "read: row ", r, " keeps ", count,
                      " tokens of ", length, " in a keep_set with room for ", stride,
                      "; let the stream wait for the one that it was planned in, by an event");
      auto const row = kept.begin() + static_cast<std::ptrdiff_t>(r * wide);
      out.tokens.insert(out.tokens.end(), row, row + count);
      out.row_begin.push_back(out.kept());
      out.lengths.push_back(length);
    }
    return out;
  }

  /// A keep set that was made elsewhere; `keep` may go when this returns. Whether it fits a cache is seen by the verb
  /// that it is given to.
  ///
  /// Errors   contract_violation if its arrays do not describe each other, or a row has more tokens than its length;
  ///          this one is as it was.
  void assign(device& ctx, kvevict::keep_set const& keep) {
    ctx.expect_no_dry_run("assign");
    contract::expect_rows("assign", keep);
    std::int64_t most = 0;
    for (std::int64_t r = 0; r < keep.rows(); ++r) {
      std::int64_t const count = keep.row(r).size, n = keep.lengths[static_cast<std::size_t>(r)];
      KVEVICT_EXPECTS(count <= n, "assign: row ", r, " keeps ", count, " tokens of ", n,
                      "; provide the keep set as plan() made it");
      most = count > most ? count : most;
    }
    resize(ctx, keep.sequences, keep.heads, most);
    epoch = keep.made_for.epoch;
    auto const n = static_cast<std::size_t>(rows()), wide = static_cast<std::size_t>(stride);
    std::vector<std::int32_t> of_rows(n), kept(n * wide);
    for (std::size_t r = 0; r < n; ++r) {
      auto const row = keep.row(static_cast<std::int64_t>(r));
      for (std::int64_t i = 0; i < row.size; ++i) kept[r * wide + static_cast<std::size_t>(i)] = row[i];
      of_rows[r] = static_cast<std::int32_t>(row.size);
    }
    copy_to_device(ctx.queue(), tokens, kept.data(), kept.size() * 4);
    copy_to_device(ctx.queue(), counts, of_rows.data(), n * 4);
    copy_to_device(ctx.queue(), lengths, keep.lengths.data(), n * 4);
    synchronize(ctx.queue());
  }

  /// Of the plan that was to fill it.
  verdict& status() { return status_; }
  verdict const& status() const { return status_; }
  void expect_planned(char const* verb) const {
    if (status_.at() == verdict::stage::refused) messages::keep_set_refused(verb);
  }

 private:
  void swap(keep_set& other) noexcept {
    std::swap(static_cast<keep_arrays&>(*this), static_cast<keep_arrays&>(other));
    std::swap(memory_, other.memory_), std::swap(status_, other.status_), std::swap(epoch, other.epoch);
  }

  buffer memory_;
  verdict status_;
};

}  // namespace cuda

template <> struct keep_sets<cuda::device> { using type = cuda::keep_set; };

}  // namespace KVEVICT_ABI
}  // namespace kvevict
