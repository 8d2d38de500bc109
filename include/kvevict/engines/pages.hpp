// SPDX-License-Identifier: Apache-2.0
// Views of a cache in engines' words: sizes in elements in, tables and components out.
//
//   pages::sizes const s{.pages = blocks, .page_size = 16, .heads = 8, .head_dim = 128, .type = dtype::bf16};
//   auto const cache = pages::view(pages::dense(block_table, batch, max_blocks, s), {lengths},
//                                  pages::k_and_v(pool, s, "2BNHD"));
#pragma once

#include <cstdint>
#include <string_view>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/engines/tensor.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace pages {

inline component nhd(role what, void* base, sizes const& s) { return tensor(what, base, s, "BNHD"); }
inline component hnd(role what, void* base, sizes const& s) { return tensor(what, base, s, "BHND"); }
inline component x_packed(role what, void* base, sizes const& s) { return tensor(what, base, s, "BHDNx"); }
inline component transposed(role what, void* base, sizes const& s) { return tensor(what, base, s, "BHDN"); }
/// [B,H,S,D], without a table.
inline component bnsh(role what, void* base, sizes const& s) { return tensor(what, base, s, "BHND"); }
/// One token a page: [cells, H, D].
inline component cells(role what, void* base, sizes const& s) { return tensor(what, base, s, "BHD"); }
/// [H, D, cells], as llama.cpp has V without flash attention. `streams` of cells lie one behind the other; a cell of
/// one is then no multiple of its number away from a cell of another.
inline component transposed_cells(role what, void* base, sizes const& s, std::int32_t streams = 1) {
  KVEVICT_EXPECTS(streams == 1, "pages: transposed cells of ", streams,
                  " streams have no common stride; make a view of each stream, or one unified stream");
  return tensor(what, base, s, "HDB");
}

/// Both halves of one cache.
struct kv {
  component k, v;

  /// The same, whose keys were turned by that. Builders do not know; an engine's header says it for its engine.
  constexpr kv turned(rotation by) const { return {k.turned(by), v}; }
};
/// Both in one tensor, whose shape has an axis 2 that holds K, then V.
inline kv k_and_v(void* base, sizes const& s, char const* shape) {
  KVEVICT_EXPECTS(std::string_view(shape).find('2') != std::string_view::npos, "pages: the shape ", shape,
                  " has no axis 2 that holds K, then V; give each its own tensor");
  return {tensor(role::k, base, s, shape), tensor(role::v, base, s, shape)};
}
/// Each in its own.
inline kv k_and_v(void* k, void* v, sizes const& s, char const* shape) {
  return {tensor(role::k, k, s, shape), tensor(role::v, v, s, shape)};
}
/// vLLM since 0.32: K, then V, in the row of each head and slot.
inline kv k_then_v_by_head(void* base, sizes const& s) { return k_and_v(base, s, "BHN2D"); }
inline kv k_then_v_by_slot(void* base, sizes const& s) { return k_and_v(base, s, "BNH2D"); }
/// A latent row that is K and, in its first `v_head_dim` elements, V: moved once.
inline kv latent(void* base, sizes const& s, char const* shape) {
  sizes of_k = s;
  of_k.v_head_dim = 0;
  component const k = tensor(role::k, base, of_k, shape);
  KVEVICT_EXPECTS(k.rows.n_runs == 1 && s.v_head_dim > 0 && s.v_head_dim <= s.head_dim, "pages: V of ", s.v_head_dim,
                  " elements is not the front of rows of ", s.head_dim,
                  "; set sizes::v_head_dim, and D is the last axis");
  component v = k;
  v.what = role::v, v.alias_of = 0;
  v.rows.run_bytes = s.v_head_dim * size_of(s.type);
  return {k, v};
}

// Tables.

/// entries (sequences, columns), one table for all heads.
template <class Entry>
page_table<Entry> dense(Entry const* entries, std::int32_t sequences, std::int32_t columns, sizes const& s,
                        std::int32_t heads = 0) {
  page_table<Entry> t;
  t.entries = entries;
  t.sequences = sequences, t.heads = heads > 0 ? heads : s.heads;
  t.columns = columns, t.page_size = s.page_size;
  t.seq_stride = columns;
  return t;
}
/// entries (sequences, heads, columns): heads have tables of their own, and may keep different counts.
template <class Entry>
page_table<Entry> by_head(Entry const* entries, std::int32_t sequences, std::int32_t heads, std::int32_t columns,
                          sizes const& s) {
  page_table<Entry> t = dense(entries, sequences, columns, s, heads);
  t.head_stride = columns > 0 ? columns : 1, t.seq_stride = t.head_stride * heads;
  return t;
}
/// Sequence b has entries[indptr[b] … indptr[b + 1]). A device context wants `columns`, the most pages of a sequence.
template <class Entry>
page_table<Entry> csr(Entry const* entries, std::int32_t const* indptr, std::int32_t sequences, sizes const& s,
                      std::int32_t columns = 0) {
  page_table<Entry> t = dense(entries, sequences, columns, s);
  t.row_begin = indptr, t.seq_stride = 0;
  return t;
}
/// No table: the page of a sequence is its number.
inline page_table<> contiguous(std::int32_t sequences, sizes const& s) {
  page_table<> t = dense<std::int32_t>(nullptr, sequences, 1, s);
  t.seq_stride = 0;
  return t;
}

template <class Entry>
layer_view<Entry> view(page_table<Entry> const& table, length_map const& lengths, kv const& both) {
  layer_view<Entry> v;
  v.pages = table, v.lengths = lengths;
  return v.with(both.k).with(both.v);
}

}  // namespace pages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
