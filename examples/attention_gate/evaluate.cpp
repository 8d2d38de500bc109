// SPDX-License-Identifier: Apache-2.0
// Gates beside the other policies on held-out documents: perplexity of the last 512 tokens after the first 1 024 were
// evicted, every policy at the number of tokens that the gates kept. And what a gate costs beside the layer that it
// belongs to.
//   engine_evaluate --model DIR --gates FILE --documents FILE.json   (what data.py --held-out prints)
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "../compare/policies.hpp"

namespace {

using namespace compare;
using llama::json;
using ids = std::vector<int>;

constexpr int context = 1024;

/// Mean negative log-likelihood of tokens whose rows of logits are given.
struct likelihood {
  double sum = 0;
  int count = 0;
  void add(llama::logits const& rows, int row, int token) {
    auto const x = rows.row(row);
    double const peak = x.maxCoeff();
    sum += peak + std::log((x.array().cast<double>() - peak).exp().sum()) - x[token];
    ++count;
  }
};

class evaluation {
 public:
  evaluation(llama::engine& e, kvevict::host& ctx, llama::gates const& g) : e_(e), ctx_(ctx), gates_(g) {}

  void run(ids const& document) {
    auto const cfg = e_.cfg();
    if (document.size() < context + 2)
      throw std::invalid_argument("a document has " + std::to_string(document.size()) + " tokens; at least " +
                                  std::to_string(context + 2) + " are needed");
    llama::kv_pool pool(std::int64_t(document.size() * 6 / 16) * cfg.layers * cfg.kv_heads, 16, cfg.head_dim);
    pool.add_keep();
    std::span const all(document), first = all.first(context);
    auto base = e_.start(pool);
    llama::record seen;
    seen.inputs = true;
    last_ = e_.prefill(base, first, 1, &seen).row(0);
    auto const enter = [&](char const* name, auto const& policy, int budget) {
      auto seq = base.fork();
      auto const cost = evict(ctx_, seq, policy, budget, prompt_evidence{seen, e_});
      follow(name, seq, all, cost.kept);
    };
    enter("full", kvevict::presets::full(), 0);
    auto cheap = base.fork();
    auto const cut = evict_gated(ctx_, cheap, gates_, seen);
    follow("attention_gate, flags for the cache only", cheap, all, cut.kept);
    int const rows = cfg.layers * cfg.kv_heads, budget = int((cut.kept + rows - 1) / rows);
    for_each_preset({}, 1, [&](std::string const& name, auto const& policy) {
      if (name != "full") enter(name.c_str(), policy, budget);
    });
    flagged(all, pool);
  }

  void report() const {
    double const best = std::exp(found_.at("full").nll.sum / found_.at("full").nll.count);
    std::printf("%-44s %10s %10s %10s\n", "policy", "kept", "perplexity", "to full");
    for (auto const& name : order_) {
      auto const& x = found_.at(name);
      double const perplexity = std::exp(x.nll.sum / x.nll.count);
      std::printf("%-44s %9.2f%% %10.3f %9.2f%%\n", name.c_str(), 100.0 * double(x.kept) / double(x.whole), perplexity,
                  100 * (perplexity / best - 1));
    }
  }

 private:
  struct outcome {
    likelihood nll;
    std::int64_t kept = 0, whole = 0;
  };

  outcome& at(std::string const& name) {
    if (!found_.contains(name)) order_.push_back(name);
    return found_[name];
  }

  /// Reads the rest of the document on what is left of its first part.
  void follow(std::string const& name, llama::sequence& seq, std::span<int const> all, std::int64_t kept) {
    auto& x = at(name);
    x.kept += kept;
    x.whole += std::int64_t{context} * seq.layers() * seq.kv_heads();
    x.nll.add({last_.data(), 1, last_.size()}, 0, all[context]);
    auto const rest = all.subspan(context);
    auto const rows = e_.prefill(seq, rest.first(rest.size() - 1), int(rest.size()) - 1);
    for (int t = 0; t + 1 < int(rest.size()); ++t) x.nll.add(rows, t, rest[std::size_t(t) + 1]);
  }

  /// The same under the flags: the first part, then the cache that it left; and the whole document.
  void flagged(std::span<int const> all, llama::kv_pool& pool) {
    auto seq = e_.start(pool);
    llama::flagged_prefill run(e_, ctx_, gates_, seq, int(all.size()));
    last_ = run.run(all.first(context)).row(0);
    auto cut = seq.fork();
    auto const cost = evict_flagged(ctx_, cut, gates_);
    follow("attention_gate", cut, all, cost.kept);
    auto const rest = all.subspan(context);
    auto& x = at("attention_gate, the whole document flagged");
    x.kept += cost.kept, x.whole += std::int64_t{context} * seq.layers() * seq.kv_heads();
    x.nll.add({last_.data(), 1, last_.size()}, 0, all[context]);
    auto const rows = run.run(rest.first(rest.size() - 1), int(rest.size()) - 1);
    for (int t = 0; t + 1 < int(rest.size()); ++t) x.nll.add(rows, t, rest[std::size_t(t) + 1]);
  }

  llama::engine& e_;
  kvevict::host& ctx_;
  llama::gates const& gates_;
  Eigen::RowVectorXf last_;
  std::map<std::string, outcome> found_;
  std::vector<std::string> order_;
};

/// Seconds of a whole prefill and of its gates, medians of five in one run.
void report_cost(llama::engine& e, kvevict::host& ctx, llama::gates const& g, ids tokens) {
  std::vector<double> whole, gated;
  for (int i = 0; i < 5; ++i) {
    llama::kv_pool pool(std::int64_t(tokens.size() / 16 + 1) * e.cfg().layers * e.cfg().kv_heads, 16, e.cfg().head_dim);
    pool.add_keep();
    auto seq = e.start(pool);
    llama::flagged_prefill run(e, ctx, g, seq, int(tokens.size()));
    double const start = now();
    run.run(tokens);
    whole.push_back(now() - start - run.gate_s);
    gated.push_back(run.gate_s);
  }
  std::sort(whole.begin(), whole.end()), std::sort(gated.begin(), gated.end());
  std::printf("prefill of %zu tokens %.3f s without its gates, gates %.3f s: %.1f %%\n", tokens.size(), whole[2],
              gated[2], 100 * gated[2] / whole[2]);
}

}  // namespace

int main(int argc, char** argv) try {
  std::string model_dir, gates_file, documents;
  CLI::App app{
      "Perplexity of held-out documents under gates and other policies; run examples/attention_gate/evaluate.sh"};
  app.add_option("--model", model_dir, "directory that prepare.py printed")->required();
  app.add_option("--gates", gates_file, "safetensors of train.py")->required();
  app.add_option("--documents", documents, "what data.py --held-out printed")->required();
  CLI11_PARSE(app, argc, argv);
  llama::model const m(model_dir);
  llama::engine e(m);
  kvevict::host ctx(llama::openmp());
  llama::gates const g(gates_file, m);
  json const texts = llama::read_json(documents);
  evaluation all(e, ctx, g);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::fprintf(stderr, "%zu of %zu: %s\n", i + 1, texts.size(), texts[i].at("name").get<std::string>().c_str());
    all.run(texts[i].at("ids").get<ids>());
  }
  all.report();
  ids two;
  for (auto const& t : texts)
    for (int id : t.at("ids").get<ids>())
      if (two.size() < 2048) two.push_back(id);
  report_cost(e, ctx, g, two);
} catch (std::exception const& error) {
  std::fprintf(stderr, "evaluate: %s\n", error.what());
  return 2;
}
