// SPDX-License-Identifier: Apache-2.0
// A natural text: how far is the next-token distribution from the full cache's after eviction?
#pragma once

#include "divergence.hpp"
#include "needle.hpp"

namespace compare {

class text {
 public:
  text(llama::engine& e, kvevict::host& ctx, llama::kv_pool& pool, settings const& s, table& out)
      : e_(e), ctx_(ctx), pool_(pool), s_(s), out_(out) {}

  /// Evicts after `context`, then reads `follow` on what is left. `shared` is the structure that all policies protect.
  void run(json const& passage, structure shared, std::string const& suffix, json& details) {
    auto const context = passage.at("context").get<ids>(), follow = passage.at("follow").get<ids>();
    std::string const task = passage.at("task").get<std::string>() + suffix;
    auto base = e_.start(pool_);
    llama::record seen, ahead;
    seen.inputs = !s_.gates.empty();
    e_.prefill(base, context, 1, &seen);
    auto whole = base.fork();
    // (T,vocab), a column per token
    Eigen::MatrixXf const truth = e_.prefill(whole, follow, int(follow.size()), &ahead).transpose();
    int const N = int(context.size());
    auto const judge = [&](std::string const& policy, llama::sequence& seq, eviction const& cost, int budget) {
      auto const d = compare_rows(seq, follow, truth);
      double const rate = suffix.empty() ? decode_rate(e_, seq, follow[0]) : 0;
      out_.add({policy, task, "text", N, budget}, "kl_nats", d.kl / d.rows, cost, rate);
      out_.add({policy, task, "text", N, budget}, "top1", d.top1 / d.rows, cost, rate);
      if (suffix.empty()) describe(details[policy][std::to_string(budget)], cost, N);
    };
    auto const enter = [&](std::string const& policy, auto const& p, int budget, auto&& evidence, int name = 0) {
      auto seq = base.fork();
      auto const cost = evict(ctx_, seq, p, budget, evidence);
      judge(policy, seq, cost, name == 0 ? budget : name);
    };
    prompt_evidence const from_prompt{seen, e_};
    for (int share : s_.shares) {
      int const budget = N * share / 100;
      for_each_preset(shared, s_, [&](std::string const& policy, auto const& p) {
        if (policy != "full" || share == s_.shares[0]) enter(policy, p, policy == "full" ? N : budget, from_prompt);
      });
      if (!s_.wanted("oracle")) continue;
      enter("oracle",
            kvevict::presets::oracle({.rows = int(follow.size()), .sinks = shared.sinks, .recent = shared.recent}),
            budget, [&](auto const& view, int l) {
              return kvevict::future(view, queries_of(ahead, e_.cfg(), l))
                  .with_lse(ahead.lse[std::size_t(l)].data(), e_.cfg().heads, 1);
            });
    }
    for (llama::gates const& g : s_.gates) {  // named by their target; the other presets get the true count
      int const target = int(std::lround(N * g.target));
      gated all(e_, ctx_, g, context, base, seen);
      judge("attention_gate", all.flagged, all.flagged_cost, target);
      judge("attention_gate_cache", all.cheap, all.cheap_cost, target);
      for_each_preset(shared, s_, [&](std::string const& policy, auto const& p) {
        if (policy != "full") enter(policy, p, all.tokens_per_head(), from_prompt, target);
      });
    }
    if (suffix.empty() && s_.wanted("ada_snapkv"))
      for (int share : s_.shares) bound(base, from_prompt, N * share / 100, details["epsilon"]);
  }

 private:
  divergence compare_rows(llama::sequence& seq, ids const& follow, Eigen::MatrixXf const& truth) {
    auto fork = seq.fork();
    auto const found = e_.prefill(fork, follow, int(follow.size()));  // (T,vocab)
    divergence d;
    for (int t = 0; t < int(follow.size()); ++t) d.add(truth.col(t).transpose(), found.row(t));
    return d;
  }

  /// Where a policy keeps tokens (64 bins of positions) and how many per layer and head.
  static void describe(json& out, eviction const& e, int N) {
    std::vector<int> bins(64);
    json heads = json::array();
    for (auto const& keep : e.keep) {
      for (std::int64_t r = 0; r < keep.rows(); ++r) {
        if (r % keep.heads == 0) heads.push_back(json::array());
        heads.back().push_back(keep.row(r).size);
        for (auto j : keep.row(r)) ++bins[std::size_t(j) * bins.size() / std::size_t(N)];
      }
    }
    out = {{"bins", bins}, {"heads", heads}};
  }

  /// Ada-KV's bound on the output's error, ε = 2C·Σ_h(1 − F_h): adaptive against uniform in every layer, F from the
  /// unpooled window rows.
  template <class Evidence> void bound(llama::sequence& base, Evidence&& evidence, int tokens, json& out) {
    using namespace kvevict::presets;
    int worse[2] = {0, 0};
    std::vector<float> mass;
    llama::sequence* const one[] = {&base};
    for (int l = 0; l < base.layers(); ++l) {
      llama::layer_cache const cache(one, l);
      auto const seen = evidence(cache.view(), l);
      kvevict::budget const want{.tokens_per_head = tokens, .layer = l, .layer_count = base.layers()};
      kvevict::scores(ctx_, snapkv({.pool = 1}), seen, want, mass);
      auto const kept = [&](auto const& policy) {
        auto const keep = kvevict::plan(ctx_, policy, seen, want);
        double sum = 0;
        for (std::int64_t r = 0; r < keep.rows(); ++r)
          for (auto j : keep.row(r))
            if (j < keep.lengths[std::size_t(r)] - 32) sum += mass[std::size_t(r * keep.lengths[std::size_t(r)] + j)];
        return sum;
      };
      int const pools[2] = {1, 7};
      for (int i = 0; i < 2; ++i)
        worse[i] += kept(ada_snapkv({.pool = pools[i]})) < kept(snapkv({.pool = pools[i]})) * (1 - 1e-9);
    }
    out.push_back(
        {{"budget", tokens}, {"layers", base.layers()}, {"worse_unpooled", worse[0]}, {"worse_pooled", worse[1]}});
  }

  llama::engine& e_;
  kvevict::host& ctx_;
  llama::kv_pool& pool_;
  settings const& s_;
  table& out_;
};

}  // namespace compare
