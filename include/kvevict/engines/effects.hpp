// SPDX-License-Identifier: Apache-2.0
// What each engine can do with a keep set, as capability records: README.md's tables are made from them.
#pragma once

#include <array>
#include <cstdint>

#include <kvevict/cache/capability.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines {

/// What becomes of a keep set, and the verb that does it.
enum class effect : std::uint8_t {
  mask,            // mask: what is not kept is hidden
  drop_pages,      // drop_pages
  compact,         // compact, one set for all heads
  compact_apart,   // compact, as many tokens in every head, not the same
  rewrite_table,   // rewrite_table, pages of one token
  tables_by_head,  // compact, heads with tables and lengths of their own
  relocate,        // relocate into fresh pages
};
inline constexpr std::int32_t effects = 7;

constexpr char const* name_of(effect o) {
  constexpr char const* names[] = {"mask",          "drop pages", "compact", "compact, heads apart",
                                   "rewrite table", "by head",    "relocate"};
  return names[static_cast<int>(o)];
}

/// Whether an engine follows: as it is, with a patch of it, or not.
enum class follows : std::uint8_t { no, patched, yes };

struct engine {
  char const* name;
  std::array<follows, effects> ways;
  // one table and one length of a sequence for all layers: pages and entries go in all layers or in none
  bool one_table_for_layers = false;
};

/// What `plan` is told of the engine's cache, so that its keep sets can become that. The next token follows the newest
/// one, so that this one stays, in all of them.
constexpr capability needs(engine const& e, effect o) {
  capability out;
  out.newest_stays = true;
  out.masked = o == effect::mask;
  out.whole_pages = o == effect::drop_pages;
  out.rows_move = o != effect::drop_pages && o != effect::rewrite_table;
  out.one_set_for_heads = o == effect::compact || o == effect::drop_pages || o == effect::rewrite_table;
  out.one_set_for_layers = e.one_table_for_layers && !out.rows_move;
  out.equal_counts = o != effect::mask && o != effect::tables_by_head;
  return out;
}

namespace table {
inline constexpr follows n = follows::no, p = follows::patched, y = follows::yes;
}  // namespace table

/// mask, drop pages, compact, heads apart, rewrite table, by head, relocate
inline constexpr engine all[] = {
    {"llama.cpp", {table::n, table::n, table::y, table::y, table::y, table::n, table::y}, true},
    {"vLLM", {table::p, table::p, table::p, table::p, table::n, table::p, table::p}, true},
    {"FlashInfer", {table::y, table::y, table::y, table::y, table::y, table::y, table::y}},
    {"TensorRT-LLM", {table::y, table::p, table::y, table::y, table::n, table::y, table::n}, true},
    {"SGLang", {table::y, table::p, table::y, table::p, table::y, table::n, table::n}, true},
    {"KV-Compress", {table::n, table::y, table::y, table::y, table::n, table::y, table::n}},
    {"transformers, ONNX Runtime", {table::y, table::n, table::y, table::y, table::n, table::n, table::n}},
    {"OpenVINO", {table::n, table::y, table::y, table::y, table::n, table::n, table::n}},
    {"LMCache", {table::n, table::n, table::y, table::y, table::n, table::n, table::n}},
};

}  // namespace engines
}  // namespace KVEVICT_ABI
}  // namespace kvevict
