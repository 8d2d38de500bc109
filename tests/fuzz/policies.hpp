// SPDX-License-Identifier: Apache-2.0
// Every preset with random options, and random evidence of the kind that it reads, behind one type.
#pragma once

#include <functional>
#include <limits>

#include <kvevict/kvevict.hpp>

#include "fuzz/cache.hpp"
#include "support/law_evidence.hpp"

namespace fuzz {

/// Numbers for options; one of them may be a wild one.
struct options {
  input& in;
  int wild_at = -1, made = 0;

  std::int32_t operator()(std::int32_t low, std::int32_t high) {
    constexpr std::int32_t wild[] = {
        -1, 0, 2, 1 << 16, 1 << 30, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min()};
    return made++ == wild_at ? in.pick(wild) : in.between(low, high);
  }
};

/// A gate of random weights.
struct gate {
  std::vector<float> numbers;
  kvevict::gate_weights weights;

  gate(input& in, std::int32_t flags) {
    weights.heads = in.between(1, 2), weights.head_dim = in.between(1, 3), weights.features = in.between(1, 6);
    weights.flags = flags;
    std::int32_t const A = weights.width(), AE = A * weights.features;
    for (std::int32_t i = 0; i < 3 * AE + flags * (A + 1); ++i) numbers.push_back(in.number());
    float const* const x = numbers.data();
    weights.q = x, weights.k = x + AE, weights.v = x + 2 * AE, weights.o = x + 3 * AE;
    weights.bias = x + 3 * AE + flags * A;
  }
};

/// What an engine can hand in of one pass, all forms at once.
struct evidence {
  enum class form { queries, lse, weights } as = form::queries;
  kvevict::query_rows queries;
  kvevict::attention_rows rows;
  kvevict::feature_rows features;
  kvevict::rope rope;
  kvevict::visibility sees;
  std::vector<std::byte> q, states;
  std::vector<float> lse, weights, memory;
  std::vector<std::int32_t> begin, positions, memory_tokens, first_token;
};

enum class needs { nothing, prompt, future, features, moments };

template <class Entry> struct policy {
  using view_type = kvevict::layer_view<Entry>;
  using plan_function = std::function<void(kvevict::host&, view_type const&, evidence const&, kvevict::budget const&,
                                           kvevict::keep_set&)>;
  needs what;
  std::int32_t state_floats, window;
  bool equal_counts, capped, uniform, unlimited, whole_pages, over_stack;
  kvevict::protect protect;
  plan_function plan, remembered;
  std::function<void(kvevict::host&, view_type const&, evidence const&, kvevict::budget const&)> observe;
};

/// f(evidence) in the form that the engine has.
template <needs What, class View, class F> void show(View const& view, evidence const& e, F f) {
  auto const seeing = [&](auto const& x) { f(x.with_visibility(e.sees)); };
  auto const with_lse = [&](auto const& x) {
    return x.with_lse(e.queries.lse, e.queries.lse_token_stride, e.queries.lse_head_stride, e.queries.base);
  };
  if constexpr (What == needs::nothing)
    seeing(kvevict::contents(view).with_rope(e.rope));
  else if constexpr (What == needs::moments)
    seeing(kvevict::contents(support::law_moments::unturned(view))
               .with_query_moments(support::law_moments(view).on_host()));
  else if constexpr (What == needs::features)
    seeing(kvevict::prompt(view, e.features));
  else if constexpr (What == needs::future)
    seeing(with_lse(kvevict::future(view, e.queries)));
  else {
    auto const output = support::law_output(view).on_host();
    if (e.as == evidence::form::weights)
      seeing(kvevict::prompt(view, e.rows).with_rope(e.rope).with_output(output));
    else if (e.as == evidence::form::lse)
      seeing(with_lse(kvevict::prompt(view, e.queries).with_rope(e.rope)).with_output(output));
    else
      seeing(kvevict::prompt(view, e.queries).with_rope(e.rope).with_output(output));
  }
}

template <class Entry, needs What, class Policy> policy<Entry> erased(Policy p, std::int32_t window) {
  using view_type = kvevict::layer_view<Entry>;
  constexpr bool capped = Policy::budgets == kvevict::sharing::cap;
  policy<Entry> out{
      What,
      kvevict::state_floats(p),
      window,
      Policy::equal_counts,
      capped,
      std::is_same_v<decltype(p.layers), kvevict::layers::uniform> && Policy::budgets != kvevict::sharing::stack,
      std::is_same_v<decltype(p.layers), kvevict::layers::unlimited>,
      kvevict::stages::says_whole_pages<decltype(p.select)>,
      Policy::budgets == kvevict::sharing::stack || kvevict::planning::after_scores<decltype(p.layers)>(),
      p.protect,
      {},
      {},
      {}};
  out.plan = [p](kvevict::host& ctx, view_type const& v, evidence const& e, kvevict::budget const& b,
                 kvevict::keep_set& keep) {
    show<What>(v, e, [&](auto const& x) { kvevict::plan(ctx, p, x, b, keep); });
  };
  if constexpr (requires { p.score.state_floats(); }) {
    out.remembered = [p](kvevict::host& ctx, view_type const& v, evidence const& e, kvevict::budget const& b,
                         kvevict::keep_set& keep) {
      kvevict::plan(ctx, p, kvevict::remembered(v).with_visibility(e.sees), b, keep);
    };
    out.observe = [p](kvevict::host& ctx, view_type const& v, evidence const& e, kvevict::budget const& b) {
      show<What>(v, e,
                 [&](auto const& x) { kvevict::observe(ctx, p, x.with_older(kvevict::older_tokens::observed), b); });
    };
  }
  return out;
}

/// One of presets/all.hpp: those that look at a window of queries, and the others; or one that keeps whole pages or one
/// set. Each part is compiled on its own. `stays`: only whole pages can go.
template <class Entry> policy<Entry> choose_window(input& in, options n);
template <class Entry> policy<Entry> choose_other(input& in, options n, gate const& g);
template <class Entry> policy<Entry> choose_of_pages(input& in, options n);
template <class Entry> policy<Entry> choose_policy(input& in, options n, gate const& g, bool stays) {
  int const part = stays && !in.one_in(4) ? 17 : in.below(18);
  return part < 7    ? choose_window<Entry>(in, n)
         : part < 14 ? choose_other<Entry>(in, n, g)
                     : choose_of_pages<Entry>(in, n);
}

/// Evidence of the newest `count` tokens of every sequence (all of them, where there are fewer) or, for the future, of
/// tokens behind the cache.
template <class Entry>
evidence choose_evidence(input& in, cache<Entry> const& c, kvevict::layer_view<Entry> const& view, std::int32_t group,
                         std::int32_t count, needs what, gate const& g) {
  evidence out;
  constexpr evidence::form forms[] = {evidence::form::queries, evidence::form::lse, evidence::form::weights};
  constexpr kvevict::dtype types[] = {kvevict::dtype::f32, kvevict::dtype::f16, kvevict::dtype::bf16};
  out.rope = c.rope;
  out.as = what == needs::future ? evidence::form::lse : in.pick(forms);
  component const& k = *view.find(role::k);
  std::int32_t const Hq = view.heads() * group, D = static_cast<std::int32_t>(k.width()), before = in.one_in(4) ? 2 : 0;
  kvevict::query_rows& q = out.queries;
  q.type = in.pick(types), q.heads = Hq, q.head_dim = D;
  q.head_stride = D + in.below(2), q.token_stride = Hq * q.head_stride + in.below(3);
  q.scale = in.one_in(3) ? 0.5f : 0, q.softcap = in.one_in(4) ? 2.0f : 0;
  q.base = in.one_in(3) ? kvevict::log_base::two : kvevict::log_base::e;
  q.lse_head_stride = 1, q.lse_token_stride = Hq + in.below(2);
  std::int32_t slots = 1;
  out.begin.push_back(before);  // rows of somebody else before
  for (std::int32_t b = 0; b < view.sequences(); ++b) {
    std::int32_t most = 0;
    for (std::int32_t h = 0; h < view.heads(); ++h) most = std::max(most, view.length(b, h));
    slots = std::max(slots, most);
    out.begin.push_back(out.begin.back() + (what == needs::future ? count : std::min(most, count)));
  }
  auto const T = static_cast<std::size_t>(out.begin.back()), E = static_cast<std::size_t>(size_of(q.type));
  out.q.resize((T + 1) * static_cast<std::size_t>(q.token_stride) * E), out.positions.assign(T, 0);
  out.lse.assign((T + 1) * static_cast<std::size_t>(q.lse_token_stride), 0);
  kvevict::attention_rows& a = out.rows;
  a.slots = slots + in.below(2), a.heads = Hq, a.head_stride = a.slots, a.token_stride = Hq * a.head_stride;
  out.weights.assign((T + 1) * static_cast<std::size_t>(a.token_stride), 0);
  std::vector<double> z;
  std::vector<float> x(static_cast<std::size_t>(D));
  std::vector<std::vector<std::vector<float>>> keys(static_cast<std::size_t>(view.rows()));  // of rows that are read
  auto const keys_of = [&](std::int32_t b, std::int32_t h) -> auto const& {
    auto& row = keys[static_cast<std::size_t>(b * view.heads() + h)];
    for (auto j = static_cast<std::int32_t>(row.size()); j < view.length(b, h); ++j)
      c.numbers(view, k, b, h, j, row.emplace_back());
    return row;
  };
  for (std::int32_t b = 0; b < view.sequences(); ++b)
    for (std::int32_t t = out.begin[std::size_t(b)], n = out.begin[std::size_t(b) + 1]; t < n; ++t) {
      out.positions[static_cast<std::size_t>(t)] =
          c.next_position[std::size_t(b)] - (what == needs::future ? 0 : n - t);
      for (std::int32_t hq = 0; hq < Hq; ++hq) {
        for (std::int32_t d = 0; d < D; ++d)
          with_type(q.type, [&](auto y) {
            y = kvevict::from_float<decltype(y)>(in.number());
            x[static_cast<std::size_t>(d)] = kvevict::to_float(y);
            std::memcpy(out.q.data() + static_cast<std::size_t>(t * q.token_stride + hq * q.head_stride + d) * E, &y,
                        sizeof y);
          });
        std::int32_t const h = hq / group, N = view.length(b, h), p = out.positions[std::size_t(t)];
        component const* const carried = view.find(role::position);
        auto const sees = [&](std::int32_t j) {  // by position, where tokens have one
          if (what == needs::future) return true;
          return carried == nullptr ? j < N - (n - t) + 1
                                    : kvevict::element<std::int32_t const>(view, *carried, b, h, j) <= p;
        };
        double whole = what == needs::future ? 0.5 : 0;
        z.clear();
        auto const& key = keys_of(b, h);
        for (std::int32_t j = 0; j < N; ++j) {
          double sum = 0;
          z.push_back(0);
          if (!sees(j)) continue;
          for (std::size_t d = 0; d < x.size(); ++d) sum += double{x[d]} * double{key[std::size_t(j)][d]};
          sum *= double{q.logit_scale()};
          if (q.softcap != 0) sum = double{q.softcap} * std::tanh(sum / double{q.softcap});
          z.back() = std::exp(sum), whole += z.back();
        }
        if (whole == 0) continue;
        double const lse = q.base == kvevict::log_base::two ? std::log2(whole) : std::log(whole);
        out.lse[static_cast<std::size_t>(t * q.lse_token_stride + hq)] = static_cast<float>(lse);
        for (std::int32_t j = 0; j < N; ++j)
          out.weights[static_cast<std::size_t>(t * a.token_stride + hq * a.head_stride + j)] =
              static_cast<float>(z[std::size_t(j)] / whole);
      }
    }
  kvevict::feature_rows& f = out.features;
  f.width = g.weights.features, f.token_stride = f.width + in.below(2);
  out.states.resize((T + 1) * static_cast<std::size_t>(f.token_stride) * 4);
  for (std::size_t i = 0; i < out.states.size(); i += 4) {
    float const y = in.number();
    std::memcpy(out.states.data() + i, &y, 4);
  }
  q.data = out.q.data(), q.lse = out.lse.data(), a.weights = out.weights.data(), f.data = out.states.data();
  q.row_begin = a.row_begin = f.row_begin = out.begin.data();
  q.positions = a.positions = out.positions.data();
  if (component const* const carried = view.find(role::position); carried != nullptr && what != needs::future)
    for (std::int32_t b = 0; b < view.sequences(); ++b)
      for (std::int32_t h = 0; h < view.heads(); ++h) {  // rows whose tokens were evicted are those of a shard
        std::int32_t const first = out.begin[std::size_t(b)], n = out.begin[std::size_t(b) + 1] - first;
        std::int32_t count = 0;
        for (std::int32_t j = 0; j < view.length(b, h) && n != 0; ++j)
          count += kvevict::element<std::int32_t const>(view, *carried, b, h, j) >= out.positions[std::size_t(first)];
        if (count < n) q.sum = a.sum = kvevict::row_sum::at_most_one;
      }
  return out;
}

}  // namespace fuzz
