// SPDX-License-Identifier: Apache-2.0
// Generates text under one policy: token ids in on stdin (one JSON array), token ids out on stdout, one a line.
#include <CLI/CLI.hpp>
#include <iostream>

#include "policies.hpp"

int main(int argc, char** argv) try {
  std::string model_dir, gates_file, name = "full";
  int budget = 1 << 30, count = 200;
  CLI::App app{"Generates from a prompt whose cache is cut to a budget after prefill"};
  app.add_option("--model", model_dir, "directory that prepare.py printed")->required();
  app.add_option("--policy", name, "a preset");
  app.add_option("--budget", budget, "tokens per KV head and layer")->check(CLI::PositiveNumber);
  app.add_option("--gates", gates_file, "trained gates of this model, for attention_gate");
  app.add_option("--tokens", count, "how many to generate")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  auto const prompt = llama::json::parse(std::cin).get<std::vector<int>>();
  llama::model const m(model_dir);
  llama::engine e(m);
  kvevict::host ctx(llama::openmp());
  llama::kv_pool pool(
      (int(prompt.size()) + count) / 16 * m.cfg.layers * m.cfg.kv_heads + 4 * m.cfg.layers * m.cfg.kv_heads, 16,
      m.cfg.head_dim);
  auto seq = e.start(pool);
  llama::record seen;
  int token = -1;
  auto const report = [&](compare::eviction const& cost) {
    std::fprintf(stderr, "%s: %zu tokens of prompt, %lld kept per head on average, cache %.1f -> %.1f MiB, %.1f ms\n",
                 name.c_str(), prompt.size(), static_cast<long long>(cost.kept / (m.cfg.layers * m.cfg.kv_heads)),
                 double(cost.bytes_before) / 1048576, double(cost.bytes_after) / 1048576,
                 (cost.score_us + cost.plan_us + cost.move_us) / 1000);
  };
  if (name == "attention_gate") {
    if (gates_file.empty())
      throw std::invalid_argument(
          "attention_gate needs --gates FILE.safetensors; examples/attention_gate/train.sh trains some");
    llama::gates const g(gates_file, m);
    pool.add_keep();
    token = llama::argmax(llama::flagged_prefill(e, ctx, g, seq, int(prompt.size())).run(prompt), 0);
    report(compare::evict_flagged(ctx, seq, g, budget < 1 << 30 ? budget : 0));
  } else {
    token = llama::argmax(e.prefill(seq, prompt, 1, &seen), 0);
    bool known = false;
    compare::for_each_preset({}, 1, [&](std::string const& each, auto const& policy) {
      if (each != name) return;
      known = true;
      report(compare::evict(ctx, seq, policy, budget, [&](auto const& view, int l) {
        return kvevict::prompt(view, queries_of(seen, m.cfg, l))
            .with_lse(seen.lse[std::size_t(l)].data(), m.cfg.heads, 1);
      }));
    });
    if (!known)
      throw std::invalid_argument("no preset '" + name +
                                  "'; there are full, random, streaming_llm, h2o, snapkv, ahakv, pyramidkv, "
                                  "ada_snapkv, ada_pyramidkv, attention_gate");
  }
  for (int i = 0; i < count && std::find(m.cfg.eos.begin(), m.cfg.eos.end(), token) == m.cfg.eos.end(); ++i) {
    std::cout << token << std::endl;
    llama::sequence* const one = &seq;
    token = llama::argmax(e.decode({&one, 1}, {&token, 1}), 0);
  }
} catch (std::exception const& error) {
  std::fprintf(stderr, "generate: %s\n", error.what());
  return 2;
}
