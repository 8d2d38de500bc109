// SPDX-License-Identifier: Apache-2.0
// Keep sets and move plans as bytes: for a file, another process, or another node. Little endian wherever they are
// written and read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cache/move_plan.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace stored {

inline constexpr std::uint64_t keep_set_magic = 0x32'30'70'65'65'6b'76'6bu;   // "kvkeep02"
inline constexpr std::uint64_t move_plan_magic = 0x32'30'6e'61'6c'70'76'6bu;  // "kvplan02"

/// What precedes the arrays; `count`: tokens or moves. Keep set: row_begin, lengths, tokens. Move plan: row_begin,
/// lengths_before, lengths, sources, destinations.
struct header {
  static constexpr std::int64_t bytes = 48;
  std::uint64_t magic;
  std::int32_t sequences, heads;
  std::int64_t count;
  std::int64_t order;
  fingerprint made_for;

  constexpr std::int64_t rows() const { return std::int64_t{sequences} * heads; }
  /// Bytes of header and arrays, or −1 when they cannot be that many.
  constexpr std::int64_t all_bytes() const {
    constexpr std::int64_t most = std::int64_t{1} << 40;
    if (sequences < 0 || heads < 0 || count < 0 || count > most || rows() > most) return -1;
    std::int64_t const arrays = magic == keep_set_magic ? 1 : 2;
    return bytes + (rows() + 1) * 8 + rows() * 4 * arrays + count * 4 * arrays;
  }
};

class writer {
 public:
  explicit writer(std::vector<std::byte>& out) : out_(out) {}

  template <class T> void number(T x) {
    auto const bits = static_cast<std::uint64_t>(x);
    for (std::size_t i = 0; i < sizeof(T); ++i) out_.push_back(static_cast<std::byte>(bits >> (8 * i) & 0xff));
  }
  template <class T> void array(std::vector<T> const& values) {
    for (T const x : values) number(x);
  }
  void head(header const& h) {
    std::size_t const all = out_.size() + static_cast<std::size_t>(h.all_bytes());
    if (all > out_.capacity()) out_.reserve(std::max(all, 2 * out_.capacity()));  // here alone memory may run out
    number(h.magic), number(h.sequences), number(h.heads), number(h.count), number(h.order);
    number(h.made_for.epoch), number(h.made_for.table);
  }

 private:
  std::vector<std::byte>& out_;
};

/// Reads what head() has found to be there.
class reader {
 public:
  explicit reader(slice<std::byte const> in) : at_(in.data), in_(in) {}

  template <class T> T number() {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) bits |= static_cast<std::uint64_t>(*at_++) << (8 * i);
    return static_cast<T>(bits);
  }
  template <class T> void array(std::vector<T>& values, std::int64_t count) {
    values.resize(static_cast<std::size_t>(count));
    for (T& x : values) x = number<T>();
  }
  /// Raises unless all that it announces is there, before any memory is taken for it.
  header head(char const* verb, std::uint64_t magic, std::int64_t most_order) {
    KVEVICT_EXPECTS(in_.size >= header::bytes && in_.data != nullptr, verb, ": ", in_.size,
                    " bytes are not even a header; provide what write() gave");
    header h{};
    h.magic = number<std::uint64_t>();
    h.sequences = number<std::int32_t>(), h.heads = number<std::int32_t>();
    h.count = number<std::int64_t>(), h.order = number<std::int64_t>();
    h.made_for.epoch = number<std::uint64_t>(), h.made_for.table = number<std::uint64_t>();
    std::int64_t const all = h.magic == magic ? h.all_bytes() : -1;
    KVEVICT_EXPECTS(all >= 0 && h.order >= 0 && h.order <= most_order, verb,
                    ": the bytes do not begin as this version writes them; provide what write() gave");
    KVEVICT_EXPECTS(in_.size >= all, verb, ": ", in_.size, " bytes are cut short, there were ", all, "; read them all");
    return h;
  }
  void rows(char const* verb, header const& h, std::vector<std::int64_t>& row_begin) {
    array(row_begin, h.rows() + 1);
    KVEVICT_EXPECTS(
        row_begin.front() == 0 && row_begin.back() == h.count && std::is_sorted(row_begin.begin(), row_begin.end()),
        verb, ": the offsets of the rows do not ascend to ", h.count, "; the bytes are damaged, write them again");
  }
  std::int64_t used() const { return at_ - in_.data; }

 private:
  std::byte const* at_;
  slice<std::byte const> in_;
};

}  // namespace stored

/// Appends the keep set to `out`.
/// Errors   contract_violation: one of a refused plan; arrays that do not describe each other. `out` is as it was.
inline void write(keep_set const& keep, std::vector<std::byte>& out) {
  contract::expect_rows("write", keep);
  stored::writer to(out);
  to.head({stored::keep_set_magic, keep.sequences, keep.heads, keep.kept(), 0, keep.made_for});
  to.array(keep.row_begin), to.array(keep.lengths), to.array(keep.tokens);
}
/// Appends the plan to `out`.
/// Errors   contract_violation as for a keep set.
inline void write(move_plan const& plan, std::vector<std::byte>& out) {
  contract::expect_rows("write", plan);
  stored::writer to(out);
  to.head({stored::move_plan_magic, plan.sequences, plan.heads, plan.moves(), static_cast<std::int64_t>(plan.order),
           plan.made_for});
  to.array(plan.row_begin), to.array(plan.lengths_before), to.array(plan.lengths);
  to.array(plan.sources), to.array(plan.destinations);
}

/// The keep set at the front of `in`, and to `used` the bytes that it took. The verb that it is given to checks it
/// against a cache.
/// Errors   contract_violation if the bytes are not a keep set of this version, are cut short, or do not ascend.
inline keep_set read_keep_set(slice<std::byte const> in, std::int64_t* used = nullptr) {
  char const* const verb = "read_keep_set";
  stored::reader from(in);
  stored::header const h = from.head(verb, stored::keep_set_magic, 0);
  keep_set out;
  out.sequences = h.sequences, out.heads = h.heads, out.made_for = h.made_for;
  from.rows(verb, h, out.row_begin);
  from.array(out.lengths, h.rows());
  from.array(out.tokens, h.count);
  if (used != nullptr) *used = from.used();
  return out;
}
/// The same of a move plan. `apply` checks it against a cache before anything moves.
inline move_plan read_move_plan(slice<std::byte const> in, std::int64_t* used = nullptr) {
  char const* const verb = "read_move_plan";
  stored::reader from(in);
  stored::header const h = from.head(verb, stored::move_plan_magic, 1);
  move_plan out;
  out.sequences = h.sequences, out.heads = h.heads, out.order = static_cast<row_order>(h.order);
  out.made_for = h.made_for;
  from.rows(verb, h, out.row_begin);
  from.array(out.lengths_before, h.rows()), from.array(out.lengths, h.rows());
  from.array(out.sources, h.count), from.array(out.destinations, h.count);
  if (used != nullptr) *used = from.used();
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
