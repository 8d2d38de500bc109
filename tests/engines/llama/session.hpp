// SPDX-License-Identifier: Apache-2.0
// A llama.cpp context with an adapter, a second look at its graphs, and what the checks ask of it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <kvevict/kvevict.hpp>

#include <kvevict/engines/llama.hpp>

#include <ggml.h>
#include <llama.h>

namespace checks {

namespace llama = kvevict::engines::llama;

struct setup {
  std::uint32_t cells = 256, batch = 64;
  std::int32_t sequences = 1;
  ggml_type k = GGML_TYPE_F32, v = GGML_TYPE_F32;
  bool flash = false, unified = true;
  llama::options options{};
};

/// A token of a sequence; the position is its place there.
struct placed {
  std::int32_t sequence, position;
  llama_token token;
};

class session {
 public:
  llama::cache<ggml_tensor> cells;
  llama_context* ctx = nullptr;
  std::function<bool(ggml_tensor*)> wants;  // nodes that `computed` is called with
  std::function<void(ggml_tensor*)> computed;

  session(llama_model* model, setup const& s) : cells(s.options), model_(model) {
    llama_context_params p = llama_context_default_params();
    p.n_ctx = s.cells, p.n_batch = p.n_ubatch = s.batch, p.n_seq_max = static_cast<std::uint32_t>(s.sequences);
    p.n_threads = p.n_threads_batch = 1;
    p.flash_attn_type = s.flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.type_k = s.k, p.type_v = s.v, p.kv_unified = s.unified, p.no_perf = true;
    p.cb_eval = callback, p.cb_eval_user_data = this;
    ctx = llama_init_from_model(model, p);
    if (ctx == nullptr) std::fprintf(stderr, "no context\n"), std::exit(2);
    batch_ = llama_batch_init(static_cast<std::int32_t>(s.batch), 0, 1);
  }
  session(session const&) = delete;
  session& operator=(session const&) = delete;
  ~session() { llama_batch_free(batch_), llama_free(ctx); }

  int decode(std::vector<placed> const& tokens) {
    batch_.n_tokens = 0;
    for (placed const& t : tokens) {
      int const i = batch_.n_tokens++;
      batch_.token[i] = t.token, batch_.pos[i] = t.position, batch_.logits[i] = 1;
      batch_.n_seq_id[i] = 1, batch_.seq_id[i][0] = t.sequence;
    }
    return cells.decode(ctx, batch_);
  }
  /// Logits of the i-th token of the last batch.
  float const* logits(int i) { return llama_get_logits_ith(ctx, i); }
  int vocabulary() const { return llama_vocab_n_tokens(llama_model_get_vocab(model_)); }

 private:
  static bool callback(ggml_tensor* t, bool ask, void* self) {
    session& s = *static_cast<session*>(self);
    bool const other = s.wants && s.wants(t), mine = llama::cache<ggml_tensor>::callback(t, ask, s.cells.user_data());
    if (ask) return mine || other;
    if (other) s.computed(t);
    return true;
  }

  llama_model* model_;
  llama_batch batch_{};
};

inline ggml_tensor* root_of(ggml_tensor* t) {
  while (t->view_src != nullptr) t = t->view_src;
  return t;
}

inline std::vector<llama_token> tokens_of(llama_model* model, char const* file, std::size_t most) {
  std::ifstream in(file);
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  std::vector<llama_token> out(text.size() + 8);
  int const n = llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<std::int32_t>(text.size()),
                               out.data(), static_cast<std::int32_t>(out.size()), true, false);
  if (n < static_cast<int>(most)) std::fprintf(stderr, "%s is too short\n", file), std::exit(2);
  out.resize(most);
  return out;
}

inline llama_model* load(char const* file) {
  llama_model_params p = llama_model_default_params();
  p.n_gpu_layers = 0, p.use_extra_bufts = false;
  llama_model* const model = llama_model_load_from_file(file, p);
  if (model == nullptr) std::fprintf(stderr, "cannot load %s\n", file), std::exit(2);
  return model;
}

/// Counts, and prints a line each.
class report {
 public:
  template <class... Values> void check(bool ok, char const* format, Values... values) {
    std::printf(ok ? "ok    " : "FAIL  ");
    std::printf(format, values...);
    std::printf("\n");
    std::fflush(stdout);
    ++(ok ? passed_ : failed_);
  }
  int close() const {
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 && passed_ > 0 ? 0 : 1;
  }

 private:
  int passed_ = 0, failed_ = 0;
};

}  // namespace checks
