// SPDX-License-Identifier: Apache-2.0
// Contracts: every public entry checks its arguments before anything is changed.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace v0 {  // the same for all units: an exception of one is caught in another

/// Bad input; `what()` reads "verb: what is wrong; what to do". Nothing has been changed when it is thrown.
struct contract_violation : std::logic_error {
  using std::logic_error::logic_error;
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

/// Builds the message from its pieces and raises it; out of line, so that a check costs one predicted branch.
template <class... Pieces> [[noreturn]] void violate(Pieces const&... pieces) {
  std::string message;
  (append(message, pieces), ...);
#if KVEVICT_EXCEPTIONS
  throw contract_violation(message);
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
