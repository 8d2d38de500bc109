// SPDX-License-Identifier: Apache-2.0
// Who takes part in a comparison, and one timed eviction of one sequence.
#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "../engine/gates.hpp"
#include "presets.hpp"

namespace compare {

using seconds = std::chrono::duration<double>;
inline double now() { return seconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// What happened to one cache, and what it cost over all layers.
struct eviction {
  double score_us = 0, plan_us = 0, move_us = 0;
  std::int64_t kept = 0, pages_freed = 0, bytes_before = 0, bytes_after = 0;  // bytes: pages in use × page size
  std::vector<kvevict::keep_set> keep;                                        // of layers, or of all of them
};

/// A score that also says how long it took: a stage is any type with a call operator.
template <class Inner> struct timed {
  static constexpr bool refines = kvevict::score::refines_before<Inner>;
  Inner inner;
  double* us;
  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const& e, kvevict::score_rows& out) const {
    double const start = now();
    inner(ctx, e, out);
    *us += (now() - start) * 1e6;
  }
};
template <class Inner> timed(Inner, double*) -> timed<Inner>;

/// The policy with clocks on its score, or on each of several.
template <class Policy> auto clocked(Policy const& p, double* us) {
  if constexpr (kvevict::score::is_shares<decltype(p.score)>)
    return p.with(p.score.with_each([us](auto const& score) { return timed{score, us}; }));
  else
    return p.with(timed{p.score, us});
}

/// What takes part in a comparison.
struct settings {
  std::vector<int> shares{10, 20, 40};  // per cent of the prompt
  std::vector<llama::gates> gates;      // of this model, if there are any
  std::vector<std::string> policies;    // their names; none: all
  std::uint64_t seed = 1;

  bool wanted(std::string const& policy) const {
    return policies.empty() || std::find(policies.begin(), policies.end(), policy) != policies.end();
  }
};

/// each(name, policy) for every wanted preset.
template <class Each> void for_each_preset(structure s, settings const& of, Each&& each) {
  for_each_preset(s, of.seed, [&](char const* name, auto const& policy) {
    if (of.wanted(name)) each(name, policy);
  });
}

/// What a prompt's record says of layer `l` of its sequence, or of all of them.
struct prompt_evidence {
  llama::record const& seen;
  llama::engine const& e;
  llama::stack_rows all{seen, e.cfg()};

  template <class View> auto operator()(View const& view, int l) const { return llama::prompt_of(view, seen, e, l); }
  template <class View> auto operator()(View const& view) const { return all.prompt(view); }
};

/// The policy divides its budget over the layers of one view.
template <class Policy>
inline constexpr bool over_layers = Policy::budgets == kvevict::sharing::stack ||
                                    kvevict::planning::after_scores<decltype(Policy::layers)>();

/// Plans and compacts every layer of one sequence, or all at once where the policy divides over layers. `policies` is a
/// policy, or gives each layer's; `evidence(view, layer)` says what it may look at, `evidence(view)` in all layers.
template <class Policies, class Evidence>
eviction evict(kvevict::host& ctx, llama::sequence& seq, Policies const& policies, int tokens_per_head,
               Evidence&& evidence) {
  eviction out;
  auto& pool = seq.pool();
  int const used = pool.used_pages();
  for (int l = 0; l < seq.layers(); ++l)
    for (int h = 0; h < seq.kv_heads(); ++h)
      out.bytes_before += std::int64_t(seq.table(l, h).pages.size() * pool.page_bytes());
  auto const of_layer = [&](int l) {
    auto const with_clock = [&](auto const& policy) { return clocked(policy, &out.score_us); };
    if constexpr (requires { policies(l); })
      return with_clock(policies(l));
    else
      return with_clock(policies);
  };
  llama::sequence* const one[] = {&seq};
  constexpr bool together = over_layers<decltype(of_layer(0))>;
  auto const seen = [&](auto const& view, int l) {
    if constexpr (together)
      return evidence(view);
    else
      return evidence(view, l);
  };
  int const step = together ? seq.layers() : 1;
  for (int l = 0; l < seq.layers(); l += step) {
    llama::layer_cache const cache(one, l, step);
    auto const view = cache.view();
    double const start = now();
    auto const& n = view.lengths;  // the prompt's, in all layers
    auto keep = kvevict::plan(ctx, of_layer(l), seen(view, l),
                              {.tokens_per_head = tokens_per_head,
                               .layer = l,
                               .layer_count = seq.layers(),
                               .lengths = {n.data, n.seq_stride, 0, n.head_stride}});
    double const planned = now();
    auto const done = kvevict::compact(ctx, view, keep);
    out.move_us += (now() - planned) * 1e6;
    out.plan_us += (planned - start) * 1e6;
    cache.truncate(done.lengths());
    out.kept += keep.kept();
    out.keep.push_back(std::move(keep));
  }
  out.plan_us -= out.score_us;
  out.pages_freed = used - pool.used_pages();
  out.bytes_after = out.bytes_before - out.pages_freed * std::int64_t(pool.page_bytes());
  return out;
}

/// What the gates of every layer keep of one sequence: after a prefill under their flags, or, from the inputs that an
/// ordinary prefill recorded, of its cache alone.
inline eviction evict_flagged(kvevict::host& ctx, llama::sequence& seq, llama::gates const& g,
                              int cap = kvevict::budget::no_cap) {
  return evict(
      ctx, seq, [&](int l) { return g.policy(l); }, cap,
      [](auto const& view, int) { return kvevict::remembered(view); });
}
inline eviction evict_gated(kvevict::host& ctx, llama::sequence& seq, llama::gates const& g,
                            llama::record const& seen) {
  return evict(
      ctx, seq, [&](int l) { return g.policy(l); }, kvevict::budget::no_cap,
      [&](auto const& view, int l) {
        return kvevict::prompt(
            view, llama::features_of(seen.input[std::size_t(l)].data(), g.layer(l).features, seen.row_begin.data()));
      });
}

/// What the gates of one file make of a prompt: prefilled under their flags, and from its ordinary prefill the cache
/// alone.
struct gated {
  gated(llama::engine& e, kvevict::host& ctx, llama::gates const& g, std::span<int const> prompt,
        llama::sequence const& base, llama::record const& seen)
      : flagged(e.start(base.pool())), cheap(base.fork()) {
    first = llama::argmax(llama::flagged_prefill(e, ctx, g, flagged, int(prompt.size())).run(prompt), 0);
    flagged_cost = evict_flagged(ctx, flagged, g);
    cheap_cost = evict_gated(ctx, cheap, g, seen);
  }

  /// For the other presets: at least as many tokens as either kept.
  int tokens_per_head() const {
    std::int64_t const rows = std::int64_t{flagged.layers()} * flagged.kv_heads();
    return int((std::max(flagged_cost.kept, cheap_cost.kept) + rows - 1) / rows);
  }

  llama::sequence flagged, cheap;
  eviction flagged_cost, cheap_cost;
  int first;  // the flagged prefill's best next token
};

/// Tokens per second of one sequence alone: median of five steps, which stay in its cache.
inline double decode_rate(llama::engine& e, llama::sequence& seq, int token) {
  double steps[5];
  for (double& step : steps) {
    llama::sequence* const one = &seq;
    double const start = now();
    e.decode({&one, 1}, {&token, 1});
    step = now() - start;
  }
  std::sort(steps, steps + 5);
  return 1 / steps[2];
}

}  // namespace compare
