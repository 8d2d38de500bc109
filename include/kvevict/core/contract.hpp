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
  std::int32_t layer, sequence, head, token;  // sequences of a stack: l·S + s

  explicit contract_violation(std::string const& what) : std::logic_error(what) { put(-1, -1, -1, -1); }
  explicit contract_violation(char const* what) : std::logic_error(what) { put(-1, -1, -1, -1); }
  contract_violation(contract_violation const& o) : std::logic_error(o) {
    put(read(o.layer), read(o.sequence), read(o.head), read(o.token));
  }
  contract_violation& operator=(contract_violation const& o) {
    std::logic_error::operator=(o);
    put(read(o.layer), read(o.sequence), read(o.head), read(o.token));
    return *this;
  }

 private:
  static std::int32_t read(std::int32_t volatile const& x) { return x; }
  /// One by one: no unit makes a vector of them, for units of all instruction sets share these functions.
  void put(std::int32_t of_layer, std::int32_t of_sequence, std::int32_t of_head, std::int32_t of_token) {
    static_cast<std::int32_t volatile&>(layer) = of_layer;
    static_cast<std::int32_t volatile&>(sequence) = of_sequence;
    static_cast<std::int32_t volatile&>(head) = of_head;
    static_cast<std::int32_t volatile&>(token) = of_token;
  }
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
/// A number as text; not by std::to_string, which units of all instruction sets would share.
template <class Number> std::string number(Number x) {
  char text[64];
  if constexpr (std::is_floating_point_v<Number>)
    std::snprintf(text, sizeof text, "%.6f", static_cast<double>(x));
  else if constexpr (std::is_signed_v<Number>)
    std::snprintf(text, sizeof text, "%lld", static_cast<long long>(x));
  else
    std::snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(x));
  return text;
}
template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
void append(std::string& out, Number piece) {
  out += number(piece);
}

/// Where a fault lies, as a piece of its message: "sequence 2, head 1", or "sequence 2" without a head. As `layer` and
/// `token` it says nothing, for a text has its own words.
struct place {
  std::int64_t sequence = -1, head = -1, token = -1, layer = -1;
};
inline void append(std::string& out, place const& at) {
  out += "sequence " + number(at.sequence);
  if (at.head >= 0) out += ", head " + number(at.head);
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
