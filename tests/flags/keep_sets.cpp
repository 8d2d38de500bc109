// SPDX-License-Identifier: Apache-2.0
// Plans with every preset and prints a hash of each keep set, for the matrix of compilers and flags. Every hash must be
// the same in all of them: the inputs are such that no score near the boundary decides, which is tried here by changing
// the scores by a thousandth, up or down.
#include <kvevict/kvevict.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

constexpr int B = 2, H = 2, G = 2, D = 8, P = 8, E = 6, future = 5, lengths[B] = {72, 45}, budget = 24;
constexpr int columns = 9, most = 72 + future;

/// Multiples of 2^-10 in (−1, 1), the same everywhere.
struct numbers {
  std::uint32_t state;
  float operator()() {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(state >> 21) - 1024) / 1024;
  }
};

float keys[B][H][most][D], values[B][H][most][D], queries[B][most][H * G][D], states[B][most][E];
constexpr int outputs = 6;
float weights_of_output[H * G * D][outputs];
float gate_q[4][E], gate_k[4][E], gate_v[4][E], gate_o[H][4], gate_bias[H];

template <class Array> void fill(Array& array, numbers& random, float scale) {
  auto* const x = reinterpret_cast<float*>(&array);
  for (std::size_t i = 0; i < sizeof array / sizeof(float); ++i) x[i] = scale * random();
}

/// The cache: a page table per head, pages of (P,D) floats.
struct cache {
  std::vector<float> k, v;
  std::int32_t table[B][H][columns], tokens[B][H];
  kvevict::layer_view<> view;

  cache() : k(B * H * columns * P * D), v(k.size()) {
    for (int b = 0, page = 0; b < B; ++b)
      for (int h = 0; h < H; ++h) {
        tokens[b][h] = lengths[b];
        for (int i = 0; i < columns; ++i) table[b][h][i] = page++;
        for (int t = 0; t < lengths[b]; ++t) {
          std::size_t const at = static_cast<std::size_t>((table[b][h][t / P] * P + t % P) * D);
          std::memcpy(&k[at], keys[b][h][t], sizeof keys[b][h][t]);
          std::memcpy(&v[at], values[b][h][t], sizeof values[b][h][t]);
        }
      }
    view.pages.entries = table[0][0], view.pages.seq_stride = H * columns, view.pages.head_stride = columns;
    view.pages.sequences = B, view.pages.heads = H, view.pages.columns = columns, view.pages.page_size = P;
    view.lengths = {tokens[0], H, 1};
    view = view.with(rows_of(k, kvevict::role::k)).with(rows_of(v, kvevict::role::v));
  }
  static kvevict::component rows_of(std::vector<float>& data, kvevict::role what) {
    kvevict::component c;
    c.what = what;
    c.rows.base = reinterpret_cast<std::byte*>(data.data());
    c.rows.page_count = B * H * columns, c.rows.page_stride = P * D * 4, c.rows.slot_stride = D * 4;
    c.rows.run_bytes = D * 4;
    return c;
  }
};

/// Queries of the tokens [0, N), or of those behind the cache, with their LSE over all tokens up to their own.
struct rows {
  std::vector<float> q, lse;
  std::vector<std::int32_t> positions, begin{0};

  explicit rows(bool behind) {
    for (int b = 0; b < B; ++b) {
      for (int i = behind ? lengths[b] : 0; i < lengths[b] + (behind ? future : 0); ++i) {
        positions.push_back(i);
        for (int hq = 0; hq < H * G; ++hq) {
          q.insert(q.end(), queries[b][i][hq], queries[b][i][hq] + D);
          double sum = 0;
          for (int j = 0; j <= i; ++j) {
            double z = 0;
            for (int d = 0; d < D; ++d) z += double{queries[b][i][hq][d]} * double{keys[b][hq / G][j][d]};
            sum += std::exp(z / std::sqrt(double{D}));
          }
          lse.push_back(static_cast<float>(std::log(sum)));
        }
      }
      begin.push_back(static_cast<std::int32_t>(positions.size()));
    }
  }
  kvevict::query_rows view() const {
    kvevict::query_rows out;
    out.data = q.data(), out.heads = H * G, out.head_dim = D, out.head_stride = D, out.token_stride = H * G * D;
    out.row_begin = begin.data(), out.positions = positions.data();
    return out;
  }
};

/// A score that is wrong by a thousandth, up or down by its own bits: equal scores stay equal.
template <class Score> struct shaken {
  Score inner;
  std::uint32_t seed;

  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const& e, kvevict::score_rows& out) const {
    inner(ctx, e, out);
    for (std::int64_t r = 0; r < out.count(); ++r)
      if (out.rows[r].active)
        for (float& x : out.scores(r)) {
          std::uint32_t const bits = (kvevict::bits::as_uint(x) ^ seed) * 2654435761u;
          x *= bits >> 31 != 0 ? 1.001f : 0.999f;
        }
  }
};

int failed = 0;

template <class Policy, class Evidence> void print(char const* name, Policy const& policy, Evidence const& e) {
  kvevict::host ctx;
  kvevict::budget want;
  want.tokens_per_head = budget, want.layer = 1, want.layer_count = 4;
  auto const keep = kvevict::plan(ctx, policy, e, want);
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    auto const shake = [seed](auto const& score) {
      return shaken<std::remove_cvref_t<decltype(score)>>{score, seed * 0x9e3779b9u};
    };
    auto const other = [&] {
      if constexpr (kvevict::score::is_shares<decltype(policy.score)>)
        return policy.with(policy.score.with_each(shake));
      else
        return policy.with(shake(policy.score));
    }();
    if (kvevict::plan(ctx, other, e, want).tokens == keep.tokens) continue;
    std::printf("%s: a thousandth of a score decides; take another input\n", name);
    ++failed;
    break;
  }
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::int64_t r = 0; r < keep.rows(); ++r) {
    for (std::int32_t const t : keep.row(r)) hash = (hash ^ static_cast<std::uint64_t>(t)) * 0x100000001b3u;
    hash = (hash ^ 0xffffu) * 0x100000001b3u;
  }
  std::printf("%s %016llx %lld\n", name, static_cast<unsigned long long>(hash), static_cast<long long>(keep.kept()));
}

}  // namespace

int main() {
  numbers random{200};  // the first for which `shaken` changes nothing
  fill(keys, random, 2), fill(values, random, 1), fill(queries, random, 4), fill(states, random, 2);
  fill(gate_q, random, 1), fill(gate_k, random, 1), fill(gate_v, random, 2), fill(gate_o, random, 3);
  fill(gate_bias, random, 1), fill(weights_of_output, random, 1);
  cache const c;
  rows const prompt(false), next(true);
  auto const seen = kvevict::prompt(c.view, prompt.view());
  auto const with_lse = seen.with_lse(prompt.lse.data(), H * G, 1);

  namespace p = kvevict::presets;
  print("full", p::full(), kvevict::contents(c.view));
  print("random", p::random({3, 2, 5}), kvevict::contents(c.view));
  print("streaming_llm", p::streaming_llm(), kvevict::contents(c.view));
  print("keydiff", p::keydiff({2, 5}), kvevict::contents(c.view));
  print("knorm", p::knorm({2, 5}), kvevict::contents(c.view));
  print("manifoldkv", p::manifoldkv({2, 5}), kvevict::contents(c.view));
  print("leverage", p::leverage({2, 5, 0.01f, kvevict::score::keys::cached}), kvevict::contents(c.view));
  auto plain = c.view;
  plain.components[0].turned_by = kvevict::rotation::none;
  print("expected_attention", p::expected_attention({.sinks = 2}), kvevict::prompt(plain, prompt.view()));
  print("capkv", p::capkv({.sinks = 2}), kvevict::prompt(plain, prompt.view()));
  print("lagkv", p::lagkv({8, 2}), kvevict::contents(c.view));
  print("h2o", p::h2o(), with_lse);
  print("snapkv", p::snapkv({8, 5}), seen);
  print("tova", p::tova(), seen);
  print("chunkkv", p::chunkkv({8, 1, 6}), seen);
  print("distinct_keys", p::distinct_keys({2, 250, 200, kvevict::score::keys::cached}), kvevict::contents(c.view));
  p::distinct_and_attended_options const mixture{8, 5, 700, 2, 250, 200, kvevict::score::keys::cached};
  print("distinct_and_attended", p::distinct_and_attended(mixture), seen);
  auto const with_output = seen.with_output({weights_of_output[0], outputs, outputs, 1});
  print("criticalkv", p::criticalkv({8, 5}), with_output);
  print("ada_criticalkv", p::ada_criticalkv({8, 5}), with_output);
  print("dropkv", p::dropkv({8}), seen);
  print("defensivekv", p::defensivekv({8}), seen);
  print("layer_defensivekv", p::layer_defensivekv({8}), seen);
  print("cake", p::cake({8}), seen);
  print("lava", p::lava({8}), seen);
  print("rkv", p::rkv({8}), seen);
  print("ahakv", p::ahakv({8}), seen);
  print("pyramidkv", p::pyramidkv({8, 5}), with_lse);
  print("ada_snapkv", p::ada_snapkv({8, 5}), seen);
  print("ada_pyramidkv", p::ada_pyramidkv({8, 5}), seen);
  print("oracle", p::oracle({future, 2, 3}), kvevict::future(c.view, next.view()).with_lse(next.lse.data(), H * G, 1));
  kvevict::gate_weights gate;
  gate.q = gate_q, gate.k = gate_k, gate.v = gate_v, gate.o = gate_o, gate.bias = gate_bias;
  gate.heads = 2, gate.head_dim = 2, gate.features = E, gate.flags = H;
  std::vector<float> x;
  for (int b = 0; b < B; ++b) x.insert(x.end(), states[b][0], states[b][0] + lengths[b] * E);
  kvevict::feature_rows features;
  features.data = x.data(), features.width = E, features.token_stride = E, features.row_begin = prompt.begin.data();
  print("attention_gate", p::attention_gate(gate, {0.5f, 2, 5}), kvevict::prompt(c.view, features));
  return failed == 0 ? 0 : 1;
}
