// SPDX-License-Identifier: Apache-2.0
// Needle prompts: is the number still produced after eviction?
#pragma once

#include "table.hpp"

namespace compare {

/// A compressed copy of one cache, waiting to answer.
struct contestant {
  table::where at;
  eviction cost;
  llama::sequence seq;
  ids answer;
};

class needle {
 public:
  needle(llama::engine& e, kvevict::host& ctx, llama::kv_pool& pool, settings const& s, table& out)
      : e_(e), ctx_(ctx), pool_(pool), s_(s), out_(out) {}

  /// One prompt in both settings: `aware` compresses context and question, `agnostic` the context before the question
  /// is seen.
  void run(json const& prompt) {
    auto const context = prompt.at("context").get<ids>(), question = prompt.at("question").get<ids>();
    answers_.clear();
    if (prompt.contains("answers"))
      answers_ = prompt.at("answers").get<std::vector<ids>>();
    else
      answers_ = {prompt.at("answer").get<ids>()};
    reply_tokens_ = prompt.value("reply_tokens", 8);
    task_ = prompt.at("task");
    auto base = e_.start(pool_);
    llama::record seen, more;
    seen.inputs = more.inputs = !s_.gates.empty();
    e_.prefill(base, context, 1, &seen);
    auto whole = base.fork();
    auto const asked = e_.prefill(whole, question, 1, &more);
    int const first = llama::argmax(asked, 0);
    ids const reply = full_reply(whole, first);
    setting(base, "agnostic", context, seen, future(base, question, reply), question);
    append(seen, more);
    ids both = context;
    both.insert(both.end(), question.begin(), question.end());
    setting(whole, "aware", both, seen, future(whole, {}, reply), {}, first);
  }

 private:
  ids full_reply(llama::sequence const& whole, int first) {
    auto seq = whole.fork();
    std::vector<contestant> one;
    one.push_back({{}, {}, std::move(seq), {first}});
    decode(one);
    return one[0].answer;
  }

  /// Queries and LSE of the tokens that really come after the cache.
  llama::record future(llama::sequence const& from, ids tokens, ids const& reply) {
    tokens.insert(tokens.end(), reply.begin(), reply.end());
    auto seq = from.fork();
    llama::record out;
    e_.prefill(seq, tokens, 1, &out);
    return out;
  }

  void setting(llama::sequence const& base, std::string const& name, ids const& prompt, llama::record const& seen,
               llama::record const& ahead, ids const& question, int first = -1) {
    std::vector<contestant> all;
    int const N = base.next_position;
    auto const enter = [&](std::string const& policy, auto const& p, int budget, auto&& evidence, int label = 0) {
      auto seq = base.fork();
      auto cost = evict(ctx_, seq, p, budget, evidence);
      all.push_back({{policy, task_, name, N, label == 0 ? budget : label}, std::move(cost), std::move(seq), {}});
    };
    prompt_evidence const from_prompt{seen, e_};
    for (int share : s_.shares) {
      int const budget = N * share / 100;
      for_each_preset({}, s_, [&](std::string const& policy, auto const& p) {
        if (policy == "full" && share != s_.shares[0]) return;
        enter(policy, p, policy == "full" ? N : budget, from_prompt);
      });
      if (!s_.wanted("oracle")) continue;
      enter("oracle", kvevict::presets::oracle({.rows = int(ahead.positions.size()), .recent = 32}), budget,
            [&](auto const& view, int l) {
              return kvevict::future(view, queries_of(ahead, e_.cfg(), l))
                  .with_lse(ahead.lse[std::size_t(l)].data(), e_.cfg().heads, 1);
            });
    }
    for (llama::gates const& g : s_.gates) {  // named by their target; the other presets get the true count
      int const target = int(std::lround(N * g.target));
      gated both(e_, ctx_, g, prompt, base, seen);
      int const count = both.tokens_per_head();
      all.push_back(
          {{"attention_gate", task_, name, N, target}, both.flagged_cost, std::move(both.flagged), {both.first}});
      all.push_back(
          {{"attention_gate_cache", task_, name, N, target}, both.cheap_cost, std::move(both.cheap), {first}});
      for_each_preset({}, s_, [&](std::string const& policy, auto const& p) {
        if (policy != "full") enter(policy, p, count, from_prompt, target);
      });
    }
    ask(all, question, first);
    double const rate = decode(all);
    for (auto& c : all) {
      double found = 0;
      for (ids const& one : answers_)
        found += std::search(c.answer.begin(), c.answer.end(), one.begin(), one.end()) != c.answer.end();
      out_.add(c.at, "needle_rate", found / double(answers_.size()), c.cost, rate);
    }
  }

  /// The first token of every answer: from the question, or known already where the question was part of the prompt.
  void ask(std::vector<contestant>& all, ids const& question, int first) {
    std::vector<llama::chunk> chunks;
    for (auto& c : all) chunks.push_back({&c.seq, question});
    if (question.empty()) {
      for (auto& c : all)
        if (c.answer.empty()) c.answer = {first};
    } else {
      auto const logits = e_.forward(chunks);
      for (int i = 0; i < std::ssize(all); ++i) all[std::size_t(i)].answer = {llama::argmax(logits, i)};
    }
  }

  /// The rest of every answer, all in one batch; tokens per second of the whole batch.
  double decode(std::vector<contestant>& all) {
    double const start = now();
    std::vector<llama::sequence*> batch;
    for (auto& c : all) batch.push_back(&c.seq);
    for (int t = 1; t < reply_tokens_; ++t) {
      ids next;
      for (auto const& c : all) next.push_back(c.answer.back());
      auto const logits = e_.decode(batch, next);
      for (int i = 0; i < std::ssize(all); ++i) all[std::size_t(i)].answer.push_back(llama::argmax(logits, i));
    }
    return double((reply_tokens_ - 1) * std::ssize(all)) / (now() - start);
  }

  llama::engine& e_;
  kvevict::host& ctx_;
  llama::kv_pool& pool_;
  settings const& s_;
  table& out_;
  std::vector<ids> answers_;
  std::string task_;
  int reply_tokens_ = 8;
};

}  // namespace compare
