// SPDX-License-Identifier: Apache-2.0
// Eviction while generating: the cache is held at its budget, token after token.
#include "decode.hpp"

#include <functional>
#include <optional>
#include <random>

#include "divergence.hpp"

namespace compare {
namespace {

class decoding {
 public:
  decoding(llama::engine& e, kvevict::host& ctx, llama::kv_pool& pool, settings const& s, table& out)
      : e_(e), ctx_(ctx), pool_(pool), s_(s), out_(out) {}

  void run(json const& passage, int tokens, progress& bar, double work) {
    auto const context = passage.at("context").get<ids>();
    N_ = int(context.size());
    task_ = passage.at("task");
    shares_ = s_.shares;
    std::erase_if(shares_, [&](int share) { return N_ * share / 100 <= window; });
    if (shares_.empty()) return bar.advance(work, "no decoding, as no budget holds more than its window");
    auto full = e_.start(pool_);
    llama::record seen;
    auto const logits = e_.prefill(full, context, 1, &seen);
    std::mt19937_64 random(s_.seed);
    ids next{sample(logits.row(0), random)};
    begin(full, seen);
    std::vector<llama::sequence*> batch{&full};
    for (auto& g : groups_)
      for (auto& s : g.seqs) batch.push_back(&s);
    for (int t = 0; t < tokens; ++t) {
      next.assign(batch.size(), next[0]);
      auto const rows = e_.decode(batch, next, &seen);  // (B,vocab)
      for (auto& g : groups_)
        for (std::size_t i = 0; i < g.seqs.size(); ++i)
          g.apart[i].add(rows.row(0), rows.row(g.first + Eigen::Index(i)));
      next[0] = sample(rows.row(0), random);
      for (auto& g : groups_) g.after(g, seen, t + 1 == tokens ? 0 : slack);
      if ((t + 1) % 64 == 0)
        bar.advance(work * 64 / tokens, "decoding " + std::to_string(t + 1) + " of " + std::to_string(tokens));
    }
    report(full);
    groups_.clear();
  }

 private:
  static constexpr int window = 32;  // last queries that are kept; a budget that holds no more tokens is left out
  static constexpr int slack = 16;   // evict every 16 tokens, down to the budget

  /// What a policy is planned with: the cache and the state in it, or the last queries, too.
  enum class reads { cache, queries };
  template <reads What> using reading = std::integral_constant<reads, What>;

  /// One policy at every budget: its sequences, and the state that its scores keep per slot of the pool.
  struct group {
    std::string name;
    std::vector<std::int32_t> budgets;
    std::vector<llama::sequence> seqs;
    std::vector<divergence> apart;
    std::vector<eviction> costs;
    std::vector<float> state;                    // (pages,P,width)
    std::vector<float> sums;                     // (L,B,H,D) of directions, of policies that keep them
    Eigen::Index first = 0;                      // its first row of the batch
    std::optional<llama::last_queries> queries;  // of policies that read them
    std::function<void(group&, llama::record const&, int)> after;
  };

  void begin(llama::sequence const& full, llama::record const& seen) {
    using namespace kvevict::presets;
    auto const enter = [&]<reads What>(char const* name, auto const& policy, reading<What>) {
      if (s_.wanted(name)) start<What>(full, policy, name, seen);
    };
    reading<reads::cache> const cache;
    reading<reads::queries> const queries;
    enter("streaming_llm", streaming_llm(), cache);
    enter("h2o", h2o(), cache);
    enter("ahakv", ahakv(), cache);
    enter("keydiff", keydiff(), cache);
    enter("distinct_keys", distinct_keys(), cache);
    if (s_.wanted("distinct_keys"))  // scored once, when they come: O(D) a step
      start<reads::cache>(full, distinct_keys().with(kvevict::score::running_diversity{}), "distinct_keys/running",
                          seen);
    enter("ada_snapkv", ada_snapkv(), queries);
    enter("defensivekv", defensivekv(), queries);
    enter("distinct_and_attended", distinct_and_attended(), queries);
  }

  template <reads What, class Policy>
  void start(llama::sequence const& full, Policy const& policy, std::string const& name, llama::record const& seen) {
    group g;
    g.name = name;
    g.first = groups_.empty() ? 1 : groups_.back().first + std::ssize(groups_.back().seqs);
    for (int share : shares_) {
      g.budgets.push_back(N_ * share / 100);
      g.seqs.push_back(full.fork());
    }
    g.apart.resize(g.seqs.size());
    g.costs.resize(g.seqs.size());
    g.state.resize(std::size_t(pool_.pages()) * std::size_t(pool_.page_size()) * std::size_t(state_floats(policy)));
    if constexpr (requires { policy.score.sums; })
      g.sums.resize(std::size_t(e_.cfg().layers) * g.seqs.size() * sums_of_sequence());
    if (What == reads::queries) g.queries.emplace(e_.cfg(), int(g.seqs.size()), window).push_to_all(ctx_, seen);
    observe_prompt(g, policy, seen);
    g.after = [this, policy](group& it, llama::record const& step, int spare) {
      after_step<What>(it, policy, step, spare);
    };
    evict_group<What>(g, policy);
    groups_.push_back(std::move(g));
  }

  template <class Policy> auto view_of(group& g, Policy const& policy, llama::layer_cache const& cache) {
    auto const view = cache.view();
    return state_floats(policy) == 0 ? view
                                     : view.with(per_slot(pool_, g.state.data(), kvevict::role::state,
                                                          kvevict::dtype::f32, state_floats(policy)));
  }

  std::size_t sums_of_sequence() const { return std::size_t(e_.cfg().kv_heads) * std::size_t(e_.cfg().head_dim); }
  /// The policy with the sums of that layer, of sequences from `first` on.
  template <class Policy> Policy at(group& g, Policy policy, int layer, std::size_t first = 0) {
    if constexpr (requires { policy.score.sums; })
      policy.score.sums = g.sums.data() + (std::size_t(layer) * g.seqs.size() + first) * sums_of_sequence();
    return policy;
  }

  template <class Policy> void observe_prompt(group& g, Policy const& policy, llama::record const& seen) {
    if constexpr (requires { policy.score.state_floats(); })
      for (std::size_t i = 0; i < g.seqs.size(); ++i) {
        llama::sequence* const one[] = {&g.seqs[i]};
        for (int l = 0; l < e_.cfg().layers; ++l) {
          llama::layer_cache const cache(one, l);
          kvevict::observe(ctx_, at(g, policy, l, i), llama::prompt_of(view_of(g, policy, cache), seen, e_, l),
                           {.tokens_per_head = g.budgets[i]});
        }
      }
  }

  template <reads What, class Policy>
  void after_step(group& g, Policy const& policy, llama::record const& step, int spare) {
    auto const batch = pointers(g);
    if constexpr (requires { policy.score.state_floats(); })
      for (int l = 0; l < e_.cfg().layers; ++l) {
        llama::layer_cache const cache(batch, l);
        double const begin = now();
        auto const rows = llama::prompt_of(view_of(g, policy, cache), step, e_, l, int(g.first));
        kvevict::observe(ctx_, at(g, policy, l), rows.with_older(kvevict::older_tokens::observed),
                         {.per_sequence = g.budgets.data()});
        for (auto& c : g.costs) c.score_us += (now() - begin) * 1e6 / double(g.costs.size());
      }
    if (g.queries) g.queries->push(ctx_, step, int(g.first));
    std::int64_t const rows = std::int64_t{e_.cfg().layers} * e_.cfg().kv_heads;
    if (tokens(g.seqs[0]) > rows * (g.budgets[0] + spare)) evict_group<What>(g, policy);
  }

  template <reads What, class Policy> void evict_group(group& g, Policy const& policy) {
    auto const batch = pointers(g);
    kvevict::rope const rope = llama::rope_of(e_.cfg());
    std::vector<std::int64_t> before;
    for (auto& s : g.seqs) before.push_back(pages(s));
    for (int l = 0; l < e_.cfg().layers; ++l) {
      llama::layer_cache const cache(batch, l);
      auto const view = view_of(g, policy, cache);
      kvevict::budget const want{.layer = l, .layer_count = e_.cfg().layers, .per_sequence = g.budgets.data()};
      double const begin = now();
      auto const keep = [&] {
        if constexpr (requires { policy.score.state_floats(); })
          return kvevict::plan(ctx_, policy, kvevict::remembered(view), want);
        else if constexpr (What == reads::queries)
          return kvevict::plan(ctx_, policy, kvevict::prompt(view, g.queries->ring(l).rows()).with_rope(rope), want);
        else
          return kvevict::plan(ctx_, policy, kvevict::contents(view).with_rope(rope), want);
      }();
      double const planned = now();
      cache.truncate(kvevict::compact(ctx_, view, keep).lengths());
      for (auto& c : g.costs) {
        c.plan_us += (planned - begin) * 1e6 / double(g.costs.size());
        c.move_us += (now() - planned) * 1e6 / double(g.costs.size());
      }
    }
    for (std::size_t i = 0; i < g.seqs.size(); ++i) g.costs[i].pages_freed += before[i] - pages(g.seqs[i]);
  }

  void report(llama::sequence& full) {
    auto const bytes = [&](llama::sequence const& s) { return pages(s) * std::int64_t(pool_.page_bytes()); };
    for (auto& g : groups_)
      for (std::size_t i = 0; i < g.seqs.size(); ++i) {
        auto& cost = g.costs[i];
        cost.bytes_before = bytes(full);  // what this context would take now
        cost.bytes_after = bytes(g.seqs[i]);
        cost.kept = tokens(g.seqs[i]);
        table::where const at{g.name, task_, "decode", N_, g.budgets[i]};
        double const rate = decode_rate(e_, g.seqs[i], 1);
        out_.add(at, "kl_nats", g.apart[i].kl / g.apart[i].rows, cost, rate);
        out_.add(at, "top1", g.apart[i].top1 / g.apart[i].rows, cost, rate);
      }
  }

  static std::vector<llama::sequence*> pointers(group& g) {
    std::vector<llama::sequence*> out;
    for (auto& s : g.seqs) out.push_back(&s);
    return out;
  }
  static std::int64_t tokens(llama::sequence const& s) {
    std::int64_t n = 0;
    for (int l = 0; l < s.layers(); ++l)
      for (int h = 0; h < s.kv_heads(); ++h) n += s.table(l, h).length;
    return n;
  }
  static std::int64_t pages(llama::sequence const& s) {
    std::int64_t n = 0;
    for (int l = 0; l < s.layers(); ++l)
      for (int h = 0; h < s.kv_heads(); ++h) n += std::ssize(s.table(l, h).pages);
    return n;
  }
  static int sample(Eigen::RowVectorXf const& logits, std::mt19937_64& random) {
    Eigen::ArrayXf const p = (logits.array() - logits.maxCoeff()).exp();
    double x = double(random() >> 11) * 0x1p-53 * double(p.cast<double>().sum());
    int i = 0;
    while (i + 1 < p.size() && (x -= double(p[i])) > 0) ++i;
    return i;
  }

  llama::engine& e_;
  kvevict::host& ctx_;
  llama::kv_pool& pool_;
  settings const& s_;
  table& out_;
  std::string task_;
  std::vector<int> shares_;
  int N_ = 0;
  std::vector<group> groups_;
};

}  // namespace

void decode_beside(llama::engine& e, kvevict::host& ctx, llama::kv_pool& pool, settings const& s, table& out,
                   json const& passage, int tokens, progress& bar, double work) {
  decoding(e, ctx, pool, s, out).run(passage, tokens, bar, work);
}

}  // namespace compare
