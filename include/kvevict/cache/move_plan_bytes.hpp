// SPDX-License-Identifier: Apache-2.0
// A move plan as bytes: for a file, another process, or another node. Both ends must have the same byte order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <kvevict/cache/move_plan.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace plan_bytes {

/// What precedes the arrays: row_begin, lengths_before, lengths, sources, destinations.
struct header {
  std::uint64_t magic = 0x31'30'6e'61'6c'70'76'6bu;  // "kvplan01"; reads differently in the other byte order
  std::int32_t sequences = 0, heads = 0;
  std::int64_t moves = 0;
  std::int32_t order = 0, unused = 0;
};
static_assert(sizeof(header) == 32, "the format has no padding");

template <class T> std::byte* write_array(std::byte* out, std::vector<T> const& values) {
  if (!values.empty()) std::memcpy(out, values.data(), values.size() * sizeof(T));
  return out + values.size() * sizeof(T);
}
template <class T> std::byte const* read_array(std::byte const* in, std::vector<T>& values, std::int64_t count) {
  values.resize(static_cast<std::size_t>(count));
  if (count != 0) std::memcpy(values.data(), in, values.size() * sizeof(T));
  return in + values.size() * sizeof(T);
}

/// Bytes of the arrays, or −1 when they cannot be that many.
constexpr std::int64_t array_bytes(header const& h) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  if (h.sequences < 0 || h.heads < 0 || h.moves < 0 || h.moves > most) return -1;
  std::int64_t const rows = std::int64_t{h.sequences} * h.heads;
  return rows > most ? -1 : (rows + 1) * 8 + rows * 8 + h.moves * 8;
}

}  // namespace plan_bytes

/// Appends the plan to `out`.
inline void write(move_plan const& plan, std::vector<std::byte>& out) {
  plan_bytes::header h;
  h.sequences = plan.sequences, h.heads = plan.heads, h.moves = plan.moves(),
  h.order = static_cast<std::int32_t>(plan.order);
  auto const rows = static_cast<std::size_t>(plan.rows());
  KVEVICT_EXPECTS(plan.row_begin.size() == rows + 1 && plan.lengths.size() == rows &&
                      plan.lengths_before.size() == rows && plan.destinations.size() == plan.sources.size(),
                  "write: the move plan's arrays do not have its sizes; fill them as plan_moves() does");
  std::size_t const old = out.size();
  out.resize(old + sizeof h + static_cast<std::size_t>(plan_bytes::array_bytes(h)));
  std::memcpy(out.data() + old, &h, sizeof h);
  std::byte* p = out.data() + old + sizeof h;
  p = plan_bytes::write_array(p, plan.row_begin);
  p = plan_bytes::write_array(p, plan.lengths_before);
  p = plan_bytes::write_array(p, plan.lengths);
  p = plan_bytes::write_array(p, plan.sources);
  plan_bytes::write_array(p, plan.destinations);
}

/// The plan at the front of `in`, and to `used` the bytes that it took. `apply` checks it against a cache before
/// anything moves.
/// Errors   contract_violation if the bytes are not a plan of this version and byte order, are cut short, or do not
///          ascend.
inline move_plan read_move_plan(slice<std::byte const> in, std::int64_t* used = nullptr) {
  plan_bytes::header h;
  std::uint64_t const magic = h.magic;
  KVEVICT_EXPECTS(in.size >= static_cast<std::int64_t>(sizeof h), "read_move_plan: ", in.size,
                  " bytes are no plan; provide what write() gave");
  std::memcpy(&h, in.data, sizeof h);
  std::int64_t const arrays = plan_bytes::array_bytes(h);
  KVEVICT_EXPECTS(h.magic == magic && arrays >= 0 && (h.order == 0 || h.order == 1),
                  "read_move_plan: these bytes are no plan of this version and byte order; provide what write() gave");
  KVEVICT_EXPECTS(in.size - static_cast<std::int64_t>(sizeof h) >= arrays, "read_move_plan: ", in.size,
                  " bytes are cut short, the plan has ", arrays + static_cast<std::int64_t>(sizeof h),
                  "; read them all");
  move_plan out;
  out.sequences = h.sequences, out.heads = h.heads, out.order = static_cast<row_order>(h.order);
  std::byte const* p = in.data + sizeof h;
  p = plan_bytes::read_array(p, out.row_begin, out.rows() + 1);
  p = plan_bytes::read_array(p, out.lengths_before, out.rows());
  p = plan_bytes::read_array(p, out.lengths, out.rows());
  p = plan_bytes::read_array(p, out.sources, h.moves);
  p = plan_bytes::read_array(p, out.destinations, h.moves);
  KVEVICT_EXPECTS(out.row_begin.front() == 0 && out.row_begin.back() == h.moves &&
                      std::is_sorted(out.row_begin.begin(), out.row_begin.end()),
                  "read_move_plan: the offsets of the rows do not ascend to the number of moves; the bytes are "
                  "damaged, write them again");
  if (used != nullptr) *used = p - in.data;
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
