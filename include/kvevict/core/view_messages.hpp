// SPDX-License-Identifier: Apache-2.0
// What is said of the lengths and pages of a view, in every context: each text stands here, once.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

[[noreturn]] inline void page_offsets(std::int64_t r, std::int64_t from, std::int64_t to) {
  contract::violate("validate: pages.row_begin[", r, "] = ", from, " and [", r + 1, "] = ", to,
                    "; offsets must start at 0 or above and never descend");
}
[[noreturn]] inline void negative_length(std::int32_t sequence, std::int32_t head, std::int64_t tokens) {
  contract::violate("validate: the length of ", row(sequence, head), " is ", tokens, "; lengths are token counts");
}
[[noreturn]] inline void length_beyond_table(std::int32_t sequence, std::int32_t head, std::int64_t tokens,
                                             std::int64_t room) {
  contract::violate("validate: ", row(sequence, head), " has ", tokens, " tokens, but its table addresses ", room,
                    "; provide the whole table, or correct the length");
}
[[noreturn]] inline void lengths_differ(std::int32_t sequence, std::int32_t head, std::int64_t first,
                                        std::int64_t tokens) {
  contract::violate(contract::at(sequence, head), "validate: heads 0 and ", head, " of ", of_sequence(sequence),
                    " have ", first, " and ", tokens,
                    " tokens but share a page table; give every head its own (pages.head_stride)");
}
[[noreturn]] inline void layers_differ(std::int32_t sequence, std::int32_t head, std::int64_t layer, std::int64_t first,
                                       std::int64_t tokens) {
  contract::violate(contract::at(sequence, head), "validate: ", row(sequence, head), " is of layer ", layer,
                    " and has ", tokens, " tokens, in layer 0 ", first,
                    ", but all layers have one row of positions; give positions a row per layer (layer_stride)");
}
[[noreturn]] inline void read_only(std::int32_t sequence, std::int64_t tokens, std::int64_t page_size) {
  contract::violate("validate: read_only[", sequence, "] = ", tokens, " tokens is not a multiple of the page size ",
                    page_size, "; a page is shared as a whole, or the whole sequence is");
}
/// Slot's position, behind the one before it (of slot 0: −1).
[[noreturn]] inline void not_ascending(std::int32_t sequence, std::int32_t head, std::int64_t slot, std::int64_t before,
                                       std::int64_t position) {
  contract::violate("validate: the view calls its rows ascending, but slot ", slot, " of ", row(sequence, head),
                    " holds position ", position, before < 0 ? std::string() : " behind " + contract::number(before),
                    position < 0 ? "; positions are 0 or more, write each token's own into the role::position component"
                                 : "; say with_order(row_order::scattered), as after hole filling and in rings, or "
                                   "compact stably");
}

[[noreturn]] inline void page_unknown(std::int64_t page, std::int32_t sequence, std::int32_t head, std::int64_t id,
                                      char const* component, std::int64_t pool) {
  contract::violate("validate: page ", page, " of ", row(sequence, head), " has id ", id, ", but component ", component,
                    " has ", pool, " pages; correct the table, index_mask or page_count");
}
[[noreturn]] inline void page_between(std::int64_t page, std::int32_t sequence, std::int32_t head, std::int64_t id,
                                      char const* component) {
  contract::violate("validate: page ", page, " of ", row(sequence, head), " has id ", id,
                    ", which does not start a page of component ", component,
                    "; ids count rows: page·slots·heads + head");
}
[[noreturn]] inline void page_null(std::int64_t page, std::int32_t sequence, std::int32_t head) {
  contract::violate("validate: page ", page, " of ", row(sequence, head),
                    " is null; every page in use needs an address");
}
[[noreturn]] inline void page_unaligned(std::int64_t page, std::int32_t sequence, std::int32_t head,
                                        char const* component) {
  contract::violate("validate: page ", page, " of ", row(sequence, head),
                    " is not aligned to the elements of component ", component, "; correct the address or the offset");
}
[[noreturn]] inline void page_alignment(std::int64_t page, std::int32_t sequence, std::int32_t head,
                                        std::int64_t bytes) {
  contract::violate("validate: page ", page, " of ", row(sequence, head), " is not aligned to ", bytes,
                    " bytes; correct the address, or pages.alignment");
}
/// `of`: the component whose own pages they are; null: they are those of the table.
inline std::string pages_of(char const* of) { return of == nullptr ? "" : std::string("component ") + of + "'s "; }
[[noreturn]] inline void page_twice(std::int64_t page, std::int64_t other, std::int32_t sequence, std::int32_t head,
                                    char const* of) {
  contract::violate("validate: ", pages_of(of), "pages ", page, " and ", other, " of ", row(sequence, head),
                    " are the same page; a row uses a page once, correct the table");
}
[[noreturn]] inline void page_shared(std::int64_t page, std::int32_t sequence, std::int32_t head, std::int64_t other,
                                     std::int64_t other_sequence, std::int64_t other_head, char const* of) {
  contract::violate(
      "validate: ", pages_of(of), "page ", page, " of ", row(sequence, head), " is also page ", other, " of ",
      row(other_sequence, other_head),
      " and would be written by both; copy it, declare the shared front with read_only, or relocate under "
      "a page_ledger");
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
