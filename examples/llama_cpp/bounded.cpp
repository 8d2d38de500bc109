// SPDX-License-Identifier: Apache-2.0
// A text of any length in a llama.cpp context of 512 cells: a policy frees some whenever the next tokens do not fit.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <llama.h>
#include <kvevict/engines/llama.hpp>
#include <kvevict/presets/all.hpp>

namespace llama = kvevict::engines::llama;
using namespace kvevict::presets;
double seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }  // of CPU

int main(int argc, char** argv) try {
  if (argc < 4) return std::fprintf(stderr, "bounded MODEL TEXT POLICY [keep chunk tokens generate flash q8_0]\n"), 2;
  std::string const policies = " full none shift streaming snapkv ahakv h2o ";
  if (policies.find(" " + std::string(argv[3]) + " ") == std::string::npos)
    return std::fprintf(stderr, "no policy is called %s; there are%s\n", argv[3], policies.c_str()), 2;
  auto const number = [&](int i, int otherwise) { return argc > i ? std::stoi(argv[i]) : otherwise; };
  std::string const name = argv[3];
  bool const evicts = name != "full" && name != "none" && name != "shift";
  int const size = name == "full" ? 4096 : 512, keep = number(4, 384), chunk = number(5, 64);
  auto const by_window = llama::one_set(snapkv({.sinks = 4}));
  auto const by_values = llama::one_set(ahakv({.sinks = 4}));
  auto const by_sums = llama::one_set(h2o({.sinks = 4}));
  auto const newest = llama::one_set(streaming_llm({.sinks = 4}));
  kvevict::host host;
  llama::cache<ggml_tensor> cells{{.window = name == "snapkv" || name == "ahakv" ? 32 : 0,
                                   .state_floats = name == "h2o" ? by_sums.score.state_floats() : 0}};

  llama_log_set([](ggml_log_level, char const*, void*) {}, nullptr);
  llama_model* const model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) return std::fprintf(stderr, "cannot load %s\n", argv[1]), 2;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = size, params.n_batch = params.n_ubatch = chunk;
  params.n_threads = params.n_threads_batch = 1;  // with more, attach a pool
  params.flash_attn_type = number(8, 0) != 0 ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  if (number(9, 0) != 0) params.type_k = GGML_TYPE_Q8_0;
  if (evicts) params.cb_eval = cells.callback, params.cb_eval_user_data = cells.user_data();
  llama_context* const ctx = llama_init_from_model(model, params);
  if (ctx == nullptr) return std::fprintf(stderr, "llama.cpp makes no context of %d cells and this cache\n", size), 2;
  double all = 0, ours = 0;                  // CPU seconds; ours leave out copies while the graph runs
  int past = 0, evictions = 0, evicted = 0;  // past: the next token's position
  auto const decode = [&](llama_batch& batch) {
    if (name == "shift" && past + batch.n_tokens > size) {  // llama.cpp's own: half of the tokens go, the others turn
      int const gone = (past - 4) / 2;
      llama_memory_seq_rm(llama_get_memory(ctx), 0, 4, 4 + gone);
      llama_memory_seq_add(llama_get_memory(ctx), 0, 4 + gone, past, -gone);
      past -= gone, evicted += gone, ++evictions;
    }
    for (int i = 0; i < batch.n_tokens; ++i) batch.pos[i] = past + i, batch.n_seq_id[i] = 1, batch.seq_id[i][0] = 0;
    double const begun = seconds();
    if (evicts && cells.free() < batch.n_tokens) {
      ++evictions;
      evicted += name == "snapkv"  ? cells.evict(host, ctx, by_window, cells.window(), keep)
                 : name == "ahakv" ? cells.evict(host, ctx, by_values, cells.window(), keep)
                 : name == "h2o"   ? cells.evict(host, ctx, by_sums, cells.remembered(), keep)
                                   : cells.evict(host, ctx, newest, cells.contents(), keep);
    }
    double const before = seconds();
    int const code = evicts ? cells.decode(ctx, batch) : llama_decode(ctx, batch);
    double const after = seconds();
    if (name == "h2o" && code == 0) cells.observe(host, by_sums, keep);
    past += code == 0 ? batch.n_tokens : 0;
    ours += seconds() - after + before - begun, all += seconds() - begun;
    return code;
  };
  std::ifstream in(argv[2]);
  if (!in) return std::fprintf(stderr, "cannot read %s\n", argv[2]), 2;
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  llama_vocab const* const vocab = llama_model_get_vocab(model);
  std::vector<llama_token> tokens(text.size() + 8);
  int count = llama_tokenize(vocab, text.data(), text.size(), tokens.data(), tokens.size(), true, false);
  int const words = llama_vocab_n_tokens(vocab), generate = number(7, 64);
  count = std::min(number(6, 2048), count);
  if (count <= 512)
    return std::fprintf(stderr, "%s has %d tokens; give more than the context's 512\n", argv[2], count), 2;
  llama_batch batch = llama_batch_init(chunk, 0, 1);
  double nll = 0, reading = 0;
  int next = 0;
  for (int from = 0; from < count + generate; from += batch.n_tokens) {
    batch.n_tokens = from < count ? std::min(chunk, count - from) : 1;
    for (int i = 0; i < batch.n_tokens; ++i)
      batch.token[i] = from < count ? tokens[from + i] : next, batch.logits[i] = from + i + 1 >= std::min(count, 512);
    if (decode(batch) != 0) return std::printf("| %s | stops at token %d | | | |\n", name.c_str(), from), 0;
    for (int i = 0; i < batch.n_tokens; ++i) {
      if (batch.logits[i] == 0) continue;
      float const *const x = llama_get_logits_ith(ctx, i), *const top = std::max_element(x, x + words);
      double sum = 0;
      for (int w = 0; w < words; ++w) sum += std::exp(x[w] - *top);
      if (int const t = from + i + 1; t < count) nll += *top + std::log(sum) - x[tokens[t]];
      next = top - x;
    }
    if (from + batch.n_tokens == count) reading = all;
    char piece[64];
    int const n = from + batch.n_tokens < count ? 0 : llama_token_to_piece(vocab, next, piece, 64, 0, false);
    std::fprintf(stderr, "%.*s", n, piece);
  }
  std::printf("\n| %s | %.4f | %.0f / %.0f | %d of %d | %.1f %% |\n", name.c_str(), nll / std::max(1, count - 512),
              count / reading, generate / (all - reading), evictions, evicted, 100 * ours / all);
} catch (std::exception const& error) {
  std::fprintf(stderr, "bounded: %s\n", error.what());
  return 2;
}
