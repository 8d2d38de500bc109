// SPDX-License-Identifier: Apache-2.0
// Contracts: every public entry checks its arguments before anything is changed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace v0 {  // the same for all units: an exception of one is caught in another

/// Bad input; `what()` reads "verb: what is wrong; what to do". Nothing has been changed when it is thrown. Where the
/// fault is one sequence's, fields say whose; −1 where that is not known, or means nothing.
struct contract_violation : std::logic_error {
  using std::logic_error::logic_error;
  std::int32_t layer = -1, sequence = -1, head = -1, token = -1;  // sequences of a stack: l·S + s
};

/// Called in place of `throw` in translation units built with -fno-exceptions; must not return.
using contract_handler = void (*)(char const* message);

/// The one that is in use.
inline contract_handler& current_contract_handler() {
  static contract_handler h = [](char const* message) {
    std::fprintf(stderr, "kvevict: %s\n", message);
    std::abort();
  };
  return h;
}

/// Replaces the handler of the whole program; the first one prints the message and aborts. Not while another thread may
/// fail.
inline void set_contract_handler(contract_handler h) { current_contract_handler() = h; }

}  // namespace v0

inline namespace KVEVICT_ABI {
namespace contract {

inline void append(std::string& out, char const* piece) { out += piece; }
inline void append(std::string& out, std::string const& piece) { out += piece; }
template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
void append(std::string& out, Number piece) {
  out += std::to_string(piece);
}

/// Where a fault lies, as a piece of its message: "sequence 2, head 1", or "sequence 2" without a head. As `layer` and
/// `token` it says nothing, for a text has its own words.
struct place {
  std::int64_t sequence = -1, head = -1, token = -1, layer = -1;
};
inline void append(std::string& out, place const& at) {
  out += "sequence " + std::to_string(at.sequence);
  if (at.head >= 0) out += ", head " + std::to_string(at.head);
}
inline std::string text_of(place const& at) {
  std::string out;
  append(out, at);
  return out;
}
/// A place that the text names in other words.
struct silent_place : place {};
inline void append(std::string&, silent_place const&) {}
constexpr silent_place at(std::int64_t sequence, std::int64_t head = -1, std::int64_t token = -1,
                          std::int64_t layer = -1) {
  return {{sequence, head, token, layer}};
}

/// The first of the pieces that is a place.
template <class Piece> void find_place(place& out, Piece const& piece) {
  if constexpr (std::is_base_of_v<place, Piece>)
    if (out.sequence < 0) out = piece;
}

/// Builds the message from its pieces and raises it; out of line, so that a check costs one predicted branch.
template <class... Pieces> [[noreturn]] void violate(Pieces const&... pieces) {
  std::string message;
  (append(message, pieces), ...);
#if KVEVICT_EXCEPTIONS
  place where;
  (find_place(where, pieces), ...);
  contract_violation fault(message);
  fault.layer = static_cast<std::int32_t>(where.layer), fault.sequence = static_cast<std::int32_t>(where.sequence);
  fault.head = static_cast<std::int32_t>(where.head), fault.token = static_cast<std::int32_t>(where.token);
  throw fault;
#else
  current_contract_handler()(message.c_str());
  std::abort();
#endif
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict

/// KVEVICT_EXPECTS(condition, "verb: what is wrong ", value, "; what to do"): always on.
#define KVEVICT_EXPECTS(condition, ...) \
  (static_cast<bool>(condition) ? static_cast<void>(0) : ::kvevict::KVEVICT_ABI::contract::violate(__VA_ARGS__))
