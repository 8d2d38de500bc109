// SPDX-License-Identifier: Apache-2.0
// llama.cpp through its public API: a context of fixed size holds a text of any length, for a policy says which cells
// are freed. Written for llama.cpp 0.5.0-dev with ggml 0.25.3 (src/llama-kv-cache.cpp, build_attn_mha of
// src/llama-graph.cpp). Nothing of it is included: its functions are found by their arguments, where llama.h is.
//
//   kvevict::engines::llama::cache<ggml_tensor> cells;
//   params.cb_eval = cells.callback, params.cb_eval_user_data = cells.user_data();  // params: llama_context_params
//   llama_context* ctx = llama_init_from_model(model, params);
//   auto const policy = kvevict::engines::llama::one_set(kvevict::presets::snapkv());
//   kvevict::host host;
//   for (llama_batch batch; next(batch); cells.decode(ctx, batch))                  // in place of llama_decode
//     if (cells.free() < batch.n_tokens) cells.evict(host, ctx, policy, cells.window(), 384);
//
// The view that policies read is cells.view().
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include <kvevict/apply/evicted_runs.hpp>
#include <kvevict/engines/llama_queries.hpp>
#include <kvevict/heads/together.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/layers/together.hpp>
#include <kvevict/policy.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::llama {

/// The policy with one set of tokens for all heads and layers, which share llama.cpp's cells. Sets of their own are
/// not offered, see README.md, Effects.
template <class Policy> constexpr auto one_set(Policy const& p) {
  return p.with(heads::together{}).with(layers::together{});
}

struct options {
  std::int32_t sequences = 1;  // n_seq_max of the context, which is unified (kv_unified) if there are several
  // newest queries of each sequence, for window(): the policy's, and the most drafts that remove() takes back; 0: none
  std::int32_t window = 32;
  std::int32_t state_floats = 0;  // of a policy that observes, policy.score.state_floats(); 0: none
  // what turned the keys; unsaid: the model's rope, and quantised ones, which llama.cpp passes through a Hadamard
  // transform, something opaque. Say none of a model without rope, and rope where that transform is switched off
  rotation keys = rotation::unsaid;
};

/// The cells of a context as a stack of all layers: a cell is a page of one token, a sequence is its cells in order of
/// position, the same in all layers. llama.cpp tells nobody which cell holds what, so decode() and remove() stand in
/// place of llama_decode and llama_memory_seq_rm; what else changes the memory (shifts, seq_cp, a loaded state) shows
/// in its oldest or newest position, or in a cell that is used twice, and is refused. The context must not outlive
/// this.
///
///   K                    base of layer + cell·row + head·row/H                             one run
///   V, flash attention   the same
///   V, without           base of layer + cell·e + (head·D + d)·cells·e                     D runs of e bytes
///
/// Cost     a context that reads queries (window, state_floats) runs its graph in one piece a layer: with more than one
///          thread attach a pool (llama_attach_threadpool). Memory: L·S·2·W·Hq·D floats of window; with state_floats
///          the queries of a batch, L·T·Hq·D, and H·L·cells·state_floats of state.
/// Errors   contract_violation: several streams, sliding windows, ALiBi, MLA, layers that differ, a cache outside of
///          host memory, a memory that was changed behind this object. What only the first graph shows is raised behind
///          llama_decode, and by every later call.
template <class Tensor> class cache {
 public:
  explicit cache(options const& o = {})
      : options_(o), cells_(std::max(o.sequences, 1)), queries_(o.sequences, o.window) {
    KVEVICT_EXPECTS(
        o.sequences >= 1 && o.window >= 0 && o.window < most && o.state_floats >= 0 && o.state_floats < most,
        "llama: ", o.sequences, " sequences, a window of ", o.window, " and ", o.state_floats,
        " floats of state; give n_seq_max, and no number below 0 or above ", most - 1);
  }
  cache(cache const&) = delete;
  cache& operator=(cache const&) = delete;

  static constexpr auto callback = &tap<Tensor>::callback;  // for llama_context_params::cb_eval
  void* user_data() { return &tap_; }

  /// Cells that the next tokens can take; before the first decode() not known, the most.
  std::int32_t free() const { return is_attached() ? cells_.free() : std::numeric_limits<std::int32_t>::max(); }
  std::int32_t length(std::int32_t sequence) const { return cells_.length(sequence); }
  std::int32_t layers() const { return static_cast<std::int32_t>(tap_.layers.size()); }

  /// llama_decode(ctx, batch), and what it returns. A batch without positions or sequences means what it means there.
  template <class Context, class Batch> std::int32_t decode(Context* ctx, Batch const& batch) {
    attach(ctx);
    expect_in_step(ctx);
    queries_.begin(tap_, cells_, batch, options_.state_floats > 0 ? batch.n_tokens : options_.window);
    std::int32_t const code = llama_decode(ctx, batch);
    end(ctx, code);
    return code;
  }

  /// llama_memory_seq_rm, of rejected drafts or a sequence that ends. p1 below 0: all from p0 on.
  template <class Context> bool remove(Context* ctx, std::int32_t sequence, std::int32_t p0, std::int32_t p1) {
    expect_in_step(ctx);
    static_cast<void>(length(sequence));
    if (!llama_memory_seq_rm(llama_get_memory(ctx), sequence, p0, p1)) return false;
    cells_.remove(sequence, p0, p1), cells_.changed(layers());
    if (options_.window > 0) queries_.forget(tap_, sequence, cells_.newest(sequence));
    return true;
  }

  /// All layers, B = L·S. It is good until the next decode(), remove() or evict().
  layer_view<> view() const {
    KVEVICT_EXPECTS(!tap_.layers.empty() && tap_.fault == nullptr,
                    "llama: ", tap_.fault != nullptr ? tap_.fault : "nothing has been decoded; call decode() first");
    layer_view<> v = cells_.view(layers(), tap_.heads);
    component const k = tap_.stacked(&tap<Tensor>::layer::k);
    rotation const known = k.is_quantised() ? rotation::opaque : rotation::rope;
    v = v.with(k.turned(options_.keys == rotation::unsaid ? known : options_.keys));
    v = v.with(tap_.stacked(&tap<Tensor>::layer::v));
    v = v.with(of_cells(role::position, cells_.positions(), 4, 0));
    if (options_.state_floats > 0)
      v = v.with(of_cells(role::state, state_.data(), options_.state_floats * 4, cells_.size()));
    v.can.one_set_for_heads = v.can.one_set_for_layers = v.can.newest_stays = true;
    return v;
  }

  /// Evidence: for policies that need no attention; the last `window` queries of each sequence; what observe() has
  /// seen.
  auto contents() const { return kvevict::contents(view()); }
  auto window() {
    KVEVICT_EXPECTS(options_.window > 0, "llama: no queries are kept; give options::window the policy's");
    return as_seen(kvevict::prompt(view(), queries_.ring(tap_).rows()));
  }
  auto remembered() const { return kvevict::remembered(view()); }

  /// kvevict::observe with the queries of the last decode(), which must have been all of it; needs state_floats.
  template <class Policy> void observe(host& h, Policy const& policy, std::int32_t tokens) {
    kvevict::observe(h, policy, as_seen(kvevict::step(view(), queries_.of_batch(tap_))), of_all_layers(tokens));
  }

  /// Frees the cells of all but `tokens` tokens of every sequence that has more, as the policy plans; returns how many.
  /// Errors   those of plan(); nothing has been freed then.
  template <class Context, class Policy, class Evidence>
  std::int32_t evict(host& h, Context* ctx, Policy const& policy, Evidence const& evidence, std::int32_t tokens) {
    expect_in_step(ctx);
    plan(h, policy, evidence, of_all_layers(tokens), keep_);
    evicted_runs(h, view(), keep_, {run_names::positions}, gone_);
    std::int32_t const before = cells_.free();
    for (std::int32_t s = 0; s < cells_.sequences(); ++s) {
      for (token_run const& r : gone_(s, 0)) expect_removed(ctx, s, r);
      cells_.keep(s, keep_(s, 0));
    }
    cells_.changed(layers());
    return cells_.free() - before;
  }

 private:
  static constexpr std::int32_t most = 1 << 20;  // of a window, and of floats of state

  bool is_attached() const { return cells_.size() != 0; }
  budget of_all_layers(std::int32_t tokens) const { return {.tokens_per_head = tokens, .layer_count = layers()}; }

  template <class Context> void attach(Context* ctx) {
    if (is_attached()) return;
    KVEVICT_EXPECTS(llama_n_ctx(ctx) == llama_n_ctx_seq(ctx), "llama: the context has several streams, ",
                    llama_n_ctx_seq(ctx), " cells for each sequence; set llama_context_params::kv_unified");
    KVEVICT_EXPECTS(llama_model_n_swa(llama_get_model(ctx)) == 0,
                    "llama: layers with sliding windows have cells of their own; such models are not supported");
    cells_.resize(llama_n_ctx(ctx));
  }

  /// llama.cpp's memory holds what decode() has put there.
  template <class Context> void expect_in_step(Context* ctx) const {
    KVEVICT_EXPECTS(tap_.fault == nullptr, "llama: ", tap_.fault);
    for (std::int32_t s = 0; s < cells_.sequences(); ++s) {
      std::int32_t const first = llama_memory_seq_pos_min(llama_get_memory(ctx), s),
                         last = llama_memory_seq_pos_max(llama_get_memory(ctx), s);
      KVEVICT_EXPECTS(first == cells_.oldest(s) && last == cells_.newest(s), "llama: the memory holds positions ",
                      first, " to ", last, " of sequence ", s, ", but ", cells_.oldest(s), " to ", cells_.newest(s),
                      " came through decode(); let decode, remove and evict alone change it, and shift nothing");
    }
  }

  /// Takes the new tokens in; of a call that failed, those that llama.cpp has left in the memory.
  template <class Context> void end(Context* ctx, std::int32_t code) {
    if (code == 0) tap_.expect_all(queries_.tokens.size());
    KVEVICT_EXPECTS(tap_.fault == nullptr, "llama: ", tap_.fault);
    for (std::size_t i = 0; i < std::min(tap_.cells.size(), queries_.tokens.size()); ++i) {
      auto const [s, position] = queries_.tokens[i];
      if (code == 0 || position <= llama_memory_seq_pos_max(llama_get_memory(ctx), s)) take(s, position, tap_.cells[i]);
    }
    state_.resize(
        static_cast<std::size_t>(layers() * tap_.heads * std::int64_t{cells_.size()} * options_.state_floats));
    cells_.changed(layers());
    if (code == 0 && options_.window > 0)
      push(host_, queries_.ring(tap_), queries_.of_batch(tap_), layers() * options_.sequences);
  }
  void take(std::int32_t s, std::int32_t position, std::int64_t cell) {
    bool const takes = cells_.takes(cell);
    if (!takes) tap_.fault = "a cell was used twice, see the first message; make another context and cache";
    KVEVICT_EXPECTS(takes, "llama: position ", position, " of sequence ", s, " came into cell ", cell, " of ",
                    cells_.size(), ", which another token has; let decode, remove and evict alone change the memory");
    cells_.take(s, position, cell);
  }

  template <class Context> static void expect_removed(Context* ctx, std::int32_t s, token_run const& r) {
    auto const p0 = static_cast<std::int32_t>(r.first), p1 = static_cast<std::int32_t>(r.last);
    KVEVICT_EXPECTS(llama_memory_seq_rm(llama_get_memory(ctx), s, p0, p1), "llama: positions ", p0, " to ", p1 - 1,
                    " of sequence ", s, " cannot be removed; recurrent memories are not supported");
  }

  /// A component of this object's own, by cell: (cells) for all, or (L, H, cells).
  component of_cells(role what, void const* data, std::int32_t bytes, std::int64_t apart) const {
    component c;
    c.what = what, c.type = what == role::position ? dtype::i32 : dtype::f32;
    c.rows.base = static_cast<std::byte*>(const_cast<void*>(data)), c.rows.page_count = cells_.size();
    c.rows.run_bytes = bytes, c.rows.page_stride = bytes;
    c.rows.head_stride = apart * bytes, c.rows.layer_stride = c.rows.head_stride * tap_.heads;
    return c;
  }
  template <class Evidence> Evidence as_seen(Evidence const& e) const {
    return e.with_scale(tap_.scale).with_softcap(tap_.softcap);
  }

  options options_;
  tap<Tensor> tap_;
  host host_;
  cell_lists cells_;
  query_memory<Tensor> queries_;
  std::vector<float> state_;  // (L, H, cells, state_floats)
  keep_set keep_;
  evicted gone_;
};

}  // namespace engines::llama
}  // namespace KVEVICT_ABI
}  // namespace kvevict
