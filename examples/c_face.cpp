// SPDX-License-Identifier: Apache-2.0
// kvevict behind a C interface, for engines in Python, Rust and C: sizes, pointers and texts, and no exception leaves
// it. g++ -std=c++20 -O2 -march=native -shared -fPIC makes a library of it; tests/c_face/use.py calls it by ctypes.
#include <cstdio>
#include <new>

#include <kvevict/kvevict.hpp>

extern "C" {

/// K and V lie alike; strides in bytes, as NumPy's are. Type: 0 f32, 1 f16, 2 bf16.
struct kv_cache {
  void *k, *v;
  std::int64_t pages, page_stride, head_stride, slot_stride;
  std::int32_t const *table, *lengths;  // (sequences, columns), NULL: contiguous, page = sequence; (sequences)
  std::int32_t sequences, heads, columns, page_size, head_dim, type;
};
/// Rotated f32 queries of each sequence's newest tokens, (rows, heads, head_dim): sequence b's from begin[b] on.
struct kv_queries {
  float const* data;
  std::int32_t const* begin;  // (sequences + 1)
  std::int32_t heads, window;
};
struct kv_evictor;
}
struct kv_evictor {
  kvevict::host ctx;
  kvevict::keep_set keep;
  kvevict::compacted<std::int32_t> done;
  char error[1024] = "";
};

namespace {

/// NULL, or what is wrong, until the evictor's next call; nothing has been changed then.
template <class F> char const* guarded(kv_evictor* e, F f) noexcept {
  if (e == nullptr) return "c_face: the evictor is NULL; kv_open() gives one";
  try {
    return f(), nullptr;
  } catch (std::exception const& fault) {
    std::snprintf(e->error, sizeof e->error, "%s", fault.what());
  } catch (...) {
    std::snprintf(e->error, sizeof e->error, "c_face: an error that is no std::exception");
  }
  return e->error;
}

kvevict::layer_view<> view_of(kv_cache const* c) {
  KVEVICT_EXPECTS(c != nullptr && c->type >= 0 && c->type <= 2, "c_face: no cache, or none of f32, f16 and bf16");
  kvevict::layer_view<> v;
  v.pages.entries = c->table, v.pages.seq_stride = c->columns, v.pages.columns = c->columns;
  v.pages.sequences = c->sequences, v.pages.heads = c->heads, v.pages.page_size = c->page_size;
  v.lengths = {c->lengths};
  kvevict::component part;
  part.type = static_cast<kvevict::dtype>(c->type);
  part.rows = {nullptr, 0, c->pages, c->page_stride, c->head_stride, c->slot_stride};
  part.rows.run_bytes = c->head_dim * kvevict::size_of(part.type);
  part.what = kvevict::role::k, part.rows.base = static_cast<std::byte*>(c->k), v = v.with(part);
  part.what = kvevict::role::v, part.rows.base = static_cast<std::byte*>(c->v);
  return v.with(part);
}

}  // namespace

extern "C" {
kv_evictor* kv_open() { return new (std::nothrow) kv_evictor; }
void kv_close(kv_evictor* e) { delete e; }

/// By SnapKV, where there are queries, else by StreamingLLM; `budget` tokens a head.
char const* kv_plan(kv_evictor* e, kv_cache const* c, kv_queries const* q, std::int32_t budget) {
  return guarded(e, [&] {
    e->keep.refused = true;  // until this call has come to its end
    auto const view = view_of(c);
    if (q == nullptr)
      return kvevict::plan(e->ctx, kvevict::presets::streaming_llm(), kvevict::contents(view), {budget}, e->keep);
    kvevict::query_rows rows{.data = q->data, .head_stride = c->head_dim, .heads = q->heads, .head_dim = c->head_dim};
    rows.token_stride = std::int64_t{c->head_dim} * q->heads, rows.row_begin = q->begin;
    auto const policy = kvevict::presets::snapkv({.window = q->window});
    kvevict::plan(e->ctx, policy, kvevict::prompt(view, rows), {budget}, e->keep);
  });
}

/// The slots that a head keeps, ascending, valid until the next plan; returns how many, −1 where there is no plan.
std::int64_t kv_kept(kv_evictor const* e, std::int32_t sequence, std::int32_t head, std::int32_t const** slots) {
  if (e == nullptr || e->keep.refused || sequence < 0 || head < 0) return -1;
  if (sequence >= e->keep.sequences || head >= e->keep.heads) return -1;
  return *slots = e->keep(sequence, head).data, e->keep(sequence, head).size;
}

/// Moves what the plan keeps. Gives lengths (sequences) and freed pages: room for all pages of the table in use.
char const* kv_compact(kv_evictor* e, kv_cache const* c, std::int32_t* lengths, std::int32_t* freed, std::int64_t* n) {
  return guarded(e, [&] {
    KVEVICT_EXPECTS(lengths != nullptr && freed != nullptr && n != nullptr, "kv_compact: a result has no memory");
    kvevict::compact(e->ctx, view_of(c), e->keep, kvevict::compaction::stable, e->done);
    for (std::int32_t b = 0; c->heads > 0 && b < c->sequences; ++b) lengths[b] = e->done.length(b, 0);
    *n = e->done.freed_pages().size;
    for (std::int64_t i = 0; i < *n; ++i) freed[i] = e->done.freed_pages()[i];
  });
}
}
