// SPDX-License-Identifier: Apache-2.0
// Generates text under one policy: token ids in on stdin (one JSON array), token ids out on stdout, one a line.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "policies.hpp"

namespace {

std::vector<int> read_prompt() {
  std::vector<int> out;
  try {
    out = llama::json::parse(std::cin).get<std::vector<int>>();
  } catch (llama::json::exception const&) {
    throw std::invalid_argument("stdin is no JSON array of token ids; examples/engine/tokens.py makes one of a text");
  }
  if (out.empty()) throw std::invalid_argument("the prompt has no tokens; give one at least");
  return out;
}

/// How many tokens can follow the prompt: what the model's positions and the machine's memory allow. The last one is
/// printed, but not fed back.
std::int64_t most_tokens(llama::config const& cfg, std::int64_t prompt) {
  std::int64_t const per_token = std::int64_t{cfg.layers} * cfg.kv_heads * (2 * cfg.head_dim + 1) * 4,
                     memory = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE) / per_token,
                     most = std::min<std::int64_t>(cfg.max_positions, memory);
  if (prompt > most)
    throw std::invalid_argument("a prompt of " + std::to_string(prompt) + " tokens is longer than the model's " +
                                std::to_string(cfg.max_positions) + " positions or the " + std::to_string(memory) +
                                " tokens of cache for which there is memory; shorten it");
  return most - prompt + 1;
}

/// All that for_each_preset has, and the gates.
std::string expect_policy(std::string const& name) {
  std::string names;
  bool known = name == "attention_gate";
  compare::for_each_preset({}, 1, [&](std::string const& each, auto const&) {
    known = known || each == name;
    names += each + ", ";
  });
  if (!known) throw std::invalid_argument("no preset '" + name + "'; there are " + names + "attention_gate");
  return name;
}

}  // namespace

int main(int argc, char** argv) try {
  std::string model_dir, gates_file, name = "full";
  int budget = 1 << 30, count = 0;
  CLI::App app{"Generates from a prompt whose cache is cut to a budget after prefill"};
  app.add_option("--model", model_dir, "directory that prepare.py printed")->required();
  app.add_option("--policy", name, "a preset");
  app.add_option("--budget", budget, "tokens per KV head and layer")->check(CLI::PositiveNumber);
  app.add_option("--gates", gates_file, "trained gates of this model, for attention_gate");
  app.add_option("--tokens", count, "how many to generate; 200 unless the model has fewer positions")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  expect_policy(name);
  auto const prompt = read_prompt();
  llama::model const m(model_dir);
  std::int64_t const most = most_tokens(m.cfg, std::ssize(prompt));
  if (count > most)
    throw std::invalid_argument("--tokens " + std::to_string(count) + " behind a prompt of " +
                                std::to_string(prompt.size()) + " is more than the model's positions or this " +
                                "machine's memory allow; give at most " + std::to_string(most));
  if (count == 0) count = int(std::min<std::int64_t>(200, most));
  llama::engine e(m);
  kvevict::host ctx(llama::openmp());
  llama::kv_pool pool((std::ssize(prompt) + count) / 16 * m.cfg.layers * m.cfg.kv_heads +
                          std::int64_t{4} * m.cfg.layers * m.cfg.kv_heads,
                      16, m.cfg.head_dim);
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
    report(compare::evict_flagged(ctx, seq, g, budget < 1 << 30 ? budget : kvevict::budget::no_cap));
  } else {
    token = llama::argmax(e.prefill(seq, prompt, 1, &seen), 0);
    compare::for_each_preset({}, 1, [&](std::string const& each, auto const& policy) {
      if (each != name) return;
      report(compare::evict(ctx, seq, policy, budget, compare::prompt_evidence{seen, e}));
    });
  }
  for (int i = 0; i < count && std::find(m.cfg.eos.begin(), m.cfg.eos.end(), token) == m.cfg.eos.end(); ++i) {
    std::cout << token << std::endl;
    llama::sequence* const one = &seq;
    if (i + 1 < count) token = llama::argmax(e.decode({&one, 1}, {&token, 1}), 0);
  }
} catch (std::exception const& error) {
  std::fprintf(stderr, "generate: %s\n", error.what());
  return 2;
}
