// SPDX-License-Identifier: Apache-2.0
// Pieces of work on one layer's tensors, each by a name, for peers.py: kvevict's, plain Eigen's, std::nth_element's and
// those of the plainest loops. No exception leaves it.
#include <cstdio>
#include <cstring>
#include <new>

#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/kvevict.hpp>

#include "support/plain.hpp"

extern "C" {

/// Queries (W,Hq,D) of the newest tokens, K and V (H,N,D), scores to select by (H,N), all contiguous. Type: 0 f32,
/// 2 bf16, of queries, K and V. `budget` tokens a head; kvpress' Ada forces `forced` of them in, the window among them.
struct pieces_layer {
  void const* queries;
  void *k, *v;
  float* given;
  std::int32_t q_heads, heads, tokens, head_dim, window, budget, forced, type;
};
struct pieces;
}

namespace {

namespace plain = bench::plain;
namespace presets = kvevict::presets;
constexpr std::int32_t pool_width = 7;

/// The least permille of `base` that is `forced` tokens.
std::int32_t permille_of(std::int32_t forced, std::int32_t base) { return (1000 * forced + base - 1) / base; }

}  // namespace

struct pieces {
  explicit pieces(pieces_layer const& of)
      : in(of), G(of.q_heads / of.heads), row_begin{0, of.window}, attention(of.tokens, of.head_dim, of.window, G) {
    scores.resize(std::size_t(of.heads) * std::size_t(of.tokens));
    for (std::int32_t h = 0; h < of.heads; ++h) pages.push_back(h), begin.push_back(begin.back() + of.tokens);
    // a page is a head's tokens, so that heads may keep different counts
    view.pages.entries = pages.data(), view.pages.seq_stride = of.heads, view.pages.head_stride = 1;
    view.pages.columns = 1, view.pages.sequences = 1, view.pages.heads = of.heads, view.pages.page_size = of.tokens;
    view.lengths = {&in.tokens};
    kvevict::component part;
    part.type = static_cast<kvevict::dtype>(of.type);
    std::int64_t const row = std::int64_t{of.head_dim} * kvevict::size_of(part.type);
    part.rows = {nullptr, 0, of.heads, of.tokens * row, 0, row};
    part.rows.run_bytes = static_cast<std::int32_t>(row);
    part.what = kvevict::role::k, part.rows.base = static_cast<std::byte*>(of.k), view = view.with(part);
    part.what = kvevict::role::v, part.rows.base = static_cast<std::byte*>(of.v), view = view.with(part);
    queries.data = of.queries, queries.type = part.type;
    queries.token_stride = std::int64_t{of.q_heads} * of.head_dim, queries.head_stride = of.head_dim;
    queries.heads = of.q_heads, queries.head_dim = of.head_dim, queries.row_begin = row_begin;
  }

  /// Rows whose last `recent` tokens are protected, and their scores in `values`.
  kvevict::score_rows over(std::vector<kvevict::row>& rows, std::int32_t recent, float* values) const {
    std::int32_t const N = in.tokens;
    rows.clear();
    for (std::int32_t h = 0; h < in.heads; ++h) rows.push_back({0, h, N, 0, N - recent, N - recent, in.budget, true});
    kvevict::score_rows out{rows.data(), 1, in.heads, begin.data(), values, nullptr};
    out.most_tokens = N, out.total_floats = begin.back();
    return out;
  }
  kvevict::score_rows scored(std::int32_t recent) { return over(rows, recent, scores.data()); }
  kvevict::score_rows ranked() { return over(rows, 0, in.given); }

  auto prompt() const { return kvevict::prompt(view, queries); }
  template <class Policy> void plan(Policy const& policy) {
    kvevict::plan(ctx, policy, prompt(), {.tokens_per_head = in.budget}, keep);
  }
  void compact() { kvevict::compact(ctx, view, keep, kvevict::compaction::stable, done); }

  float const* keys(std::int32_t h) const { return static_cast<float const*>(in.k) + head_floats() * h; }
  float const* values(std::int32_t h) const { return static_cast<float const*>(in.v) + head_floats() * h; }
  std::int64_t head_floats() const { return std::int64_t{in.tokens} * in.head_dim; }
  auto query_of(std::int32_t h) const {
    return [this, h](std::int32_t i, std::int32_t g) {
      return static_cast<float const*>(in.queries) + (std::int64_t{i} * in.q_heads + h * G + g) * in.head_dim;
    };
  }
  /// A head's scores, pooled over all but the window.
  void take_pooled(std::int32_t h, float const* of) {
    auto const pooled = plain::average<float>(of, in.tokens - in.window, pool_width);
    std::copy(pooled.begin(), pooled.end(), scores.begin() + begin[std::size_t(h)]);
  }
  void take_kept(std::int32_t h, std::vector<std::int32_t> const& tokens) {
    if (h == 0) keep = {}, keep.sequences = 1, keep.heads = in.heads, keep.row_begin = {0};
    keep.tokens.insert(keep.tokens.end(), tokens.begin(), tokens.end());
    keep.row_begin.push_back(keep.kept());
  }

  pieces_layer in;
  std::int32_t G, row_begin[2];
  plain::eigen_attention attention;
  kvevict::host ctx;
  kvevict::layer_view<> view;
  kvevict::query_rows queries;
  std::vector<std::int32_t> pages;
  std::vector<std::int64_t> begin{0};
  std::vector<kvevict::row> rows;
  std::vector<float> scores;
  kvevict::keep_set keep;
  kvevict::compacted<std::int32_t> done;
  char error[1024] = "";
};

namespace {

template <class F> void each_head(pieces& p, F f) {
  for (std::int32_t h = 0; h < p.in.heads; ++h) f(h);
}

struct piece {
  char const* name;
  void (*run)(pieces&);
};

constexpr presets::snapkv_options snapkv(pieces const& p) {
  return {.window = p.in.window, .pool = pool_width, .kind = kvevict::pooling::average};
}

constexpr piece kvevicts[] = {
    {"scores",
     [](pieces& p) {
       kvevict::window_options o{p.in.window};
       o.pool = {pool_width, kvevict::pooling::average};
       kvevict::kernels::window_scores(p.ctx, p.view, p.queries, o, p.scored(p.in.window));
     }},
    {"norms",
     [](pieces& p) {
       auto const out = p.scored(0);
       kvevict::kernels::squared_norms(p.ctx, p.view, *p.view.find(kvevict::role::v), out);
       kvevict::kernels::each_token(p.ctx, out, kvevict::score::key_norm::minus_root{});
     }},
    {"diversity",
     [](pieces& p) {
       auto out = p.scored(0);
       kvevict::score::key_diversity{}(p.ctx, kvevict::contents(p.view), out);
     }},
    {"select", [](pieces& p) { kvevict::kernels::select_best(p.ctx, p.ranked(), p.keep); }},
    {"ada",
     [](pieces& p) {
       auto rows = p.ranked();
       kvevict::heads::adaptive{}(p.ctx, rows);
       kvevict::kernels::select_best(p.ctx, rows, p.keep);
     }},
    {"ada_forced",
     [](pieces& p) {
       auto rows = p.ranked();
       kvevict::heads::forced_floor{permille_of(p.in.forced, p.in.budget)}(p.ctx, rows);
       kvevict::kernels::select_best(p.ctx, rows, p.keep);
     }},
    {"compact", [](pieces& p) { p.compact(); }},
    {"plan_snapkv", [](pieces& p) { p.plan(presets::snapkv(snapkv(p))); }},
    {"plan_ada_snapkv",
     [](pieces& p) {
       auto const [forced, base] = std::pair{std::max(0, p.in.forced - p.in.window), p.in.budget - p.in.window};
       p.plan(presets::snapkv(snapkv(p)).with(kvevict::heads::forced_floor{permille_of(forced, base)}));
     }},
    {"plan_keydiff", [](pieces& p) { p.plan(kvevict::policy{kvevict::score::key_diversity{}}); }},
};

constexpr piece others[] = {
    {"eigen_scores",
     [](pieces& p) {
       each_head(p, [&](std::int32_t h) { p.take_pooled(h, p.attention(p.keys(h), p.query_of(h)).data()); });
     }},
    {"eigen_norms",
     [](pieces& p) {
       plain::rows_of const values(p.values(0), std::int64_t{p.in.heads} * p.in.tokens, p.in.head_dim);
       Eigen::Map<Eigen::VectorXf>(p.scores.data(), values.rows()) = -values.rowwise().norm();
     }},
    {"eigen_diversity",
     [](pieces& p) {
       each_head(p, [&](std::int32_t h) {
         plain::rows_of const keys(p.keys(h), p.in.tokens, p.in.head_dim);
         Eigen::VectorXf const scale = keys.rowwise().norm().cwiseInverse();
         Eigen::VectorXf const mean = (keys.transpose() * scale).normalized();
         Eigen::Map<Eigen::VectorXf> out(p.scores.data() + p.begin[std::size_t(h)], p.in.tokens);
         out.noalias() = keys * mean;
         out = -out.cwiseProduct(scale);
       });
     }},
    {"naive_scores",
     [](pieces& p) {
       each_head(p, [&](std::int32_t h) {
         auto sums = plain::attention<float>(p.keys(h), p.in.tokens, p.in.head_dim, p.in.window, p.G, p.query_of(h));
         for (float& x : sums) x /= static_cast<float>(p.in.window);
         p.take_pooled(h, sums.data());
       });
     }},
    {"naive_norms",
     [](pieces& p) {
       plain::squared_norms(p.values(0), p.begin.back(), p.in.head_dim, p.scores.data());
       for (float& x : p.scores) x = -std::sqrt(x);
     }},
    {"naive_diversity",
     [](pieces& p) {
       each_head(p, [&](std::int32_t h) {
         std::vector<float> keys(p.keys(h), p.keys(h) + p.head_floats());
         auto const out = plain::diversity(keys, p.in.head_dim);
         std::copy(out.begin(), out.end(), p.scores.begin() + p.begin[std::size_t(h)]);
       });
     }},
    {"nth_element_select",
     [](pieces& p) {
       each_head(p, [&](std::int32_t h) {
         p.take_kept(h, plain::best(p.in.given + p.begin[std::size_t(h)], p.in.tokens, p.in.budget));
       });
     }},
    {"nth_element_ada_forced",
     [](pieces& p) {
       std::int32_t const H = p.in.heads, N = p.in.tokens;
       auto const all = plain::best_of_layer(p.in.given, H, N, std::int64_t{H} * p.in.budget, p.in.forced);
       auto from = all.begin();
       each_head(p, [&](std::int32_t h) {
         auto const to = std::lower_bound(from, all.end(), (h + 1) * N);
         std::vector<std::int32_t> row(from, to);
         for (std::int32_t& j : row) j -= h * N;
         p.take_kept(h, row), from = to;
       });
     }},
    {"naive_compact",
     [](pieces& p) {
       each_head(p, [&](std::int32_t h) {
         auto const kept = p.keep.row(h);
         for (float const* const of : {p.keys(h), p.values(h)}) {
           auto* const base = const_cast<float*>(of);
           for (std::int64_t i = 0; i < kept.size; ++i)
             if (kept[i] != i)
               std::memcpy(base + i * p.in.head_dim, base + std::int64_t{kept[i]} * p.in.head_dim,
                           std::size_t(p.in.head_dim) * sizeof(float));
         }
       });
     }},
};

piece const* find(char const* name) {
  for (piece const& one : kvevicts)
    if (std::strcmp(one.name, name) == 0) return &one;
  for (piece const& one : others)
    if (std::strcmp(one.name, name) == 0) return &one;
  return nullptr;
}

}  // namespace

extern "C" {

/// NULL without memory. The tensors stay the caller's, and where they are.
pieces* pieces_open(pieces_layer const* of) {
  try {
    return new pieces(*of);
  } catch (...) {
    return nullptr;
  }
}
void pieces_close(pieces* p) { delete p; }

/// 0, or 1: pieces_error says why.
int pieces_run(pieces* p, char const* name) {
  try {
    piece const* const one = find(name);
    KVEVICT_EXPECTS(one != nullptr, "pieces_run: there is no piece called ", name);
    return one->run(*p), 0;
  } catch (std::exception const& fault) {
    std::snprintf(p->error, sizeof p->error, "%s", fault.what());
  } catch (...) {
    std::snprintf(p->error, sizeof p->error, "an error that is no std::exception");
  }
  return 1;
}
char const* pieces_error(pieces const* p) { return p->error; }

/// (H,N), of the last piece that scored.
float const* pieces_scores(pieces const* p) { return p->scores.data(); }
/// The slots that head h keeps by the last piece that selected, ascending; returns how many.
std::int64_t pieces_kept(pieces const* p, std::int32_t h, std::int32_t const** slots) {
  auto const kept = p->keep.row(h);
  return *slots = kept.data, kept.size;
}
}
