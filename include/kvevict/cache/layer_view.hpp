// SPDX-License-Identifier: Apache-2.0
// A layer's KV cache for a batch of sequences, or that of a stack of layers: the one view that reads every engine's
// layout.
#pragma once

#include <array>
#include <cstdint>

#include <kvevict/cache/capability.hpp>
#include <kvevict/cache/component.hpp>
#include <kvevict/cache/token_rows.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Physical length of row (b, h): data[b·seq_stride + h·head_stride]; head_stride 0 when all heads are equally long.
/// Or, as FlashInfer has it, by pages: with i = b·seq_stride + h·head_stride those in [page_begin[i], page_begin[i+1]),
/// of which the last one holds data[i] tokens.
struct length_map {
  std::int32_t const* data = nullptr;
  std::int64_t seq_stride = 1, head_stride = 0;
  std::int32_t const* page_begin = nullptr;  // indptr, or null
  std::int32_t page_size = 0;                // with page_begin

  /// kv_indptr and kv_last_page_len.
  static constexpr length_map of_pages(std::int32_t const* page_begin, std::int32_t const* last_page_len,
                                       std::int32_t page_size, std::int64_t seq_stride = 1,
                                       std::int64_t head_stride = 0) {
    return {last_page_len, seq_stride, head_stride, page_begin, page_size};
  }

  constexpr std::int32_t operator()(std::int32_t b, std::int32_t h) const {
    std::int64_t const i = b * seq_stride + h * head_stride;
    return page_begin == nullptr ? data[i] : tokens_of(i);
  }

 private:
  /// What is no length of pages becomes one that every check refuses: below 0, or longer than any table.
  constexpr std::int32_t tokens_of(std::int64_t i) const {
    std::int64_t const pages = std::int64_t{page_begin[i + 1]} - page_begin[i];
    if (pages <= 0) return pages == 0 ? 0 : -1;
    std::int64_t const n = data[i] < 0 ? data[i] : data[i] > page_size ? most : (pages - 1) * page_size + data[i];
    return static_cast<std::int32_t>(n < most ? n : most);
  }
  static constexpr std::int64_t most = 0x7fffffff;
};

/// Whether slots are in order of position. Hole-filling and in-place replacement make rows `scattered`: then protection
/// and ties go by the position component, and stages that need neighbours refuse.
enum class row_order : std::uint8_t { ascending, scattered };

/// Where the cache carries positions, `plan` and `observe` check that ascending rows are; or the engine has proven it.
enum class order_proof : std::uint8_t { checked, by_engine };

/// A layer's cache: page table, components, lengths (non-owning, trivially copyable). `read_only[b]` tokens at the
/// front of sequence b are shared with others (prefix cache): never evicted, never written; a multiple of the page
/// size, or the whole sequence.
template <class Entry = std::int32_t> struct layer_view {
  using table_entry = Entry;
  static constexpr std::int32_t max_components = 8;

  page_table<Entry> pages;
  length_map lengths;
  std::array<component, max_components> components{};
  std::int32_t component_count = 0;
  row_order order = row_order::ascending;
  order_proof proof = order_proof::checked;
  std::int32_t const* read_only = nullptr;  // (B), or null: nothing is shared
  // a number of the engine's, another one whenever tokens of a row have changed, which lengths and pages may not show:
  // an aborted or retried step, a rejected draft, a sequence that was preempted. A keep set of another epoch is
  // refused; 0: the engine does not count.
  std::uint64_t epoch = 0;
  capability can{};

  constexpr std::int32_t sequences() const { return pages.sequences; }
  constexpr std::int32_t heads() const { return pages.heads; }
  constexpr std::int64_t rows() const { return std::int64_t{pages.sequences} * pages.heads; }
  constexpr std::int32_t length(std::int32_t b, std::int32_t h) const { return lengths(b, h); }
  constexpr std::int32_t read_only_tokens(std::int32_t b) const { return read_only == nullptr ? 0 : read_only[b]; }

  constexpr component const* begin() const { return components.data(); }
  constexpr component const* end() const { return components.data() + component_count; }

  /// The first component of that role, or null.
  constexpr component const* find(role what) const {
    for (auto const& c : *this)
      if (c.what == what) return &c;
    return nullptr;
  }

  /// The component whose rows hold c's scales, where those lie in one; or null. What is an alias has its owner's.
  constexpr component const* scales_of(component const& c) const {
    bool const alias = c.alias_of >= 0 && c.alias_of < component_count;
    role const of = alias ? components[static_cast<std::size_t>(c.alias_of)].what : c.what;
    return of == role::k ? find(role::k_scale) : of == role::v ? find(role::v_scale) : nullptr;
  }

  /// The second part of every key, where keys lie in two tensors (MLA: a latent part in k and a rotary part in rope),
  /// or null.
  constexpr component const* second_keys() const {
    component const* const c = find(role::rope);
    return c == nullptr || c->alias_of >= 0 || !c->has_numbers() ? nullptr : c;
  }
  /// Elements of a key.
  constexpr std::int64_t key_width() const {
    component const *const k = find(role::k), *const second = second_keys();
    return (k == nullptr ? 0 : k->width()) + (second == nullptr ? 0 : second->width());
  }

  /// The same view with one more component: positions, accumulated scores, anything that must move with the tokens.
  layer_view with(component c) const {
    KVEVICT_EXPECTS(component_count < max_components, "layer_view: more than ", max_components,
                    " components; drop one");
    layer_view out = *this;
    out.components[static_cast<std::size_t>(out.component_count++)] = c;
    return out;
  }
  layer_view with_order(row_order o, order_proof p = order_proof::checked) const {
    layer_view out = *this;
    out.order = o, out.proof = p;
    return out;
  }
  layer_view with_read_only(std::int32_t const* tokens) const {
    layer_view out = *this;
    out.read_only = tokens;
    return out;
  }

  layer_view with_capability(capability c) const {
    layer_view out = *this;
    out.can = c;
    return out;
  }
  layer_view with_epoch(std::uint64_t e) const {
    layer_view out = *this;
    out.epoch = e;
    return out;
  }

  /// The position component that an ascending view's order is checked by, or null.
  constexpr component const* checked_positions() const {
    return order == row_order::ascending && proof == order_proof::checked ? find(role::position) : nullptr;
  }

  /// All components lie in the pages that the table names.
  constexpr bool has_one_table() const {
    for (component const& c : *this)
      if (c.table_offset != 0) return false;
    return true;
  }

  /// One row serves all heads (MLA, common positions): what is written for one head is written for all.
  constexpr bool shared_by_heads(component const& c) const {
    return c.rows.head_stride == 0 && pages.heads > 1 && (!pages.per_head() || pages.is_identity());
  }

  /// One row serves all layers of a stack: of positions alone, as K, V and states are a layer's own.
  constexpr bool shared_by_layers(component const& c) const {
    return c.what == role::position && c.rows.layer_stride == 0 && pages.layers > 1 &&
           (pages.layer_stride == 0 || pages.is_identity());
  }
  /// Whether the rows of c that (b, h) has are read and moved for it, and not for the first head or layer that shares
  /// them.
  constexpr bool owns(component const& c, std::int32_t b, std::int32_t h) const {
    return (h == 0 || !shared_by_heads(c)) && (pages.layer_of(b) == 0 || !shared_by_layers(c));
  }
  /// The row of the same sequence and head in layer 0.
  constexpr std::int64_t row_in_first_layer(std::int32_t b, std::int32_t h) const {
    return std::int64_t{pages.sequence_of(b)} * heads() + h;
  }
  /// The first component of which all heads, or all layers, have one row; or null.
  constexpr component const* common_to_heads() const {
    for (component const& c : *this)
      if (shared_by_heads(c)) return &c;
    return nullptr;
  }
  constexpr component const* common_to_layers() const {
    for (component const& c : *this)
      if (shared_by_layers(c)) return &c;
    return nullptr;
  }
  /// Whether a sequence must be as long in all layers: where positions are common, and K is not, so that layers are
  /// apart.
  constexpr bool one_length_for_layers() const {
    component const* const k = find(role::k);
    return common_to_layers() != nullptr && k != nullptr && k->rows.layer_stride != 0;
  }

  /// What its keep sets must be: what it says, and, unless they become masks, what its layout shows.
  constexpr capability demands() const {
    capability out = can;
    if (can.masked) return out;
    for (component const& c : *this) out.whole_pages = out.whole_pages || c.scope == quant_scope::page_channel;
    // an entry of the table goes for all that share it
    bool const stay = (out.whole_pages || !out.rows_move) && !pages.is_identity();
    out.one_set_for_heads = out.one_set_for_heads || (stay && pages.heads > 1 && !pages.per_head());
    out.one_set_for_layers = out.one_set_for_layers || (stay && pages.layers > 1 && pages.layer_stride == 0);
    out.equal_counts = out.equal_counts || (pages.heads > 1 && !pages.per_head());
    out.one_set_for_heads = out.one_set_for_heads || common_to_heads() != nullptr;
    out.one_set_for_layers = out.one_set_for_layers || common_to_layers() != nullptr;
    return out;
  }

  /// Where the rows of (b, h) lie in component c.
  constexpr token_rows<Entry> rows_of(component const& c, std::int32_t b, std::int32_t h) const {
    row_map const& m = c.rows;
    token_rows<Entry> out{
        nullptr,       pages.index_mask, m.base,         m.offset + m.row_offset(pages.layer_of(b), h, 0),
        m.page_stride, m.slot_stride,    pages.page_size};
    if (!pages.is_identity())
      out.entries = pages.entries_of(b, h) + c.table_offset;
    else
      out.start += pages.sequence_of(b) * m.page_stride;
    return out;
  }
  /// First byte of the row of token t in component c.
  constexpr std::byte* row(component const& c, std::int32_t b, std::int32_t h, std::int64_t t) const {
    return rows_of(c, b, h)(t);
  }
};

/// One typed element of a row, for scalars such as positions and accumulated scores.
template <class T, class Entry>
constexpr T& element(layer_view<Entry> const& view, component const& c, std::int32_t b, std::int32_t h,
                     std::int64_t t) {
  return *reinterpret_cast<T*>(view.row(c, b, h, t));
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
