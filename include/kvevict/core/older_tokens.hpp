// SPDX-License-Identifier: Apache-2.0
// What the state of tokens holds that are older than the rows which observe() is given.
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What an engine says of a sequence's tokens that come before its new rows. Their pages may have been another
/// request's, so that their state is that request's until it is written.
///
///   none      there are none, or only a read-only prefix: all other tokens are new. More of them are refused
///   observed  earlier calls of observe() have taken them in: a further chunk, a decoding step
///   zero      nobody has observed them, as behind a prefix that a cache of prefixes supplied: their state starts at 0
enum class older_tokens : std::uint8_t { none, observed, zero };

/// Whether that can be true, by what is there.
enum class older_fault : std::uint8_t {
  none,
  unsaid,
  at_zero,
  before_position,
  before_memory,
  rows_before_newest,
  tokens_without_row,
  rows_without_token
};

/// Of rows of attention: `older` tokens before them, those of a read-only prefix included (`writable`: not), and the
/// position of the first row. A row at position 0 begins a sequence; before position p are at most p tokens.
constexpr older_fault check_older(older_tokens said, std::int64_t older, std::int64_t writable, std::int64_t position) {
  if (writable <= 0 || said == older_tokens::zero) return older_fault::none;
  if (position == 0) return older_fault::at_zero;
  if (said == older_tokens::none) return older_fault::unsaid;
  return older > position ? older_fault::before_position : older_fault::none;
}
/// Of tokens from the position of the first row on, of which every one has a row; `is_shard`: not every row has one.
constexpr older_fault check_fresh(std::int64_t tokens, std::int64_t rows, bool is_shard) {
  return tokens > rows                ? older_fault::tokens_without_row
         : tokens < rows && !is_shard ? older_fault::rows_without_token
                                      : older_fault::none;
}
/// Of hidden states, which carry no positions: `seen` tokens are in the gate's memory, 0 without one.
constexpr older_fault check_older_of_gate(older_tokens said, std::int64_t older, std::int64_t writable,
                                          std::int64_t seen) {
  if (writable <= 0 || said == older_tokens::zero) return older_fault::none;
  if (seen == 0) return said == older_tokens::none ? older_fault::unsaid : older_fault::none;
  return older > seen ? older_fault::before_memory : older_fault::none;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
