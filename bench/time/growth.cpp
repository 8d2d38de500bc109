// SPDX-License-Identifier: Apache-2.0
// How time and scratch grow with tokens and with sequences. Every call takes the next stretch of one large cache, so
// that a small one finds its keys as far away as a large one.
#include <kvevict/kernels/host.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

constexpr std::int32_t most_sequences = 256;
constexpr shape all{4, 1, 1 << 20, 64, 8};

/// B sequences of N tokens at a time out of the cache.
struct stretches {
  stretches(input& of, std::int32_t B, std::int32_t N) : in(of), sequences(B), tokens(N), lengths(std::size_t(B), N) {
    for (std::int32_t b = 0; b < B; ++b) {
      rows.push_back({b, 0, N, 0, N - all.W, N - all.W, N / 5, true});
      begin.push_back(std::int64_t{b} * N), query_begin.push_back(b * all.W);
    }
    begin.push_back(std::int64_t{B} * N), query_begin.push_back(B * all.W);
  }
  std::int32_t count() const { return all.N / (sequences * tokens); }
  kvevict::layer_view<> view(std::int32_t i) const {
    kvevict::layer_view<> v = in.view();
    v.pages.columns = tokens / all.page(), v.pages.seq_stride = v.pages.columns, v.pages.sequences = sequences;
    v.pages.entries += i * sequences * v.pages.columns;
    v.lengths.data = lengths.data();
    return v;
  }
  kvevict::query_rows queries() const {
    kvevict::query_rows q = in.queries_with_lse();
    q.row_begin = query_begin.data();
    return q;
  }
  kvevict::score_rows out(std::int32_t i) {
    kvevict::score_rows s{rows.data(), sequences, 1, begin.data(), in.out().values, nullptr, 0};
    s.values += std::int64_t{i} * sequences * tokens;
    s.most_tokens = tokens, s.total_floats = std::int64_t{sequences} * tokens;
    return s;
  }

  input& in;
  std::int32_t sequences, tokens;
  std::vector<std::int32_t> lengths, query_begin;
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin;
};

enum class kernel { window_scores, squared_norms, select };

/// The first tokens of the last sequence of stretch i.
bool right(stretches& s, std::int32_t i, kernel which, kvevict::keep_set const& keep) {
  std::int32_t const b = s.sequences - 1;
  if (which == kernel::select) return keep.kept() == std::int64_t{s.sequences} * (s.tokens / 5);
  auto const view = s.view(i);
  for (std::int32_t j = 0; j < 50; ++j) {
    float const* const k = reinterpret_cast<float const*>(view.row(view.components[0], b, 0, j));
    double const want = which == kernel::squared_norms
                            ? std::inner_product(k, k + all.D, k, 0.0)
                            : weights_of(k, s.in, all, 0, b * all.W, (b + 1) * all.W) / all.W;
    if (!(std::abs(double{s.out(i).scores(b)[j]} - want) <= 1e-5 * want)) return false;
  }
  return true;
}

void grow(benchmark::State& state, kernel which, std::int32_t B, std::int32_t N) {
  context& c = on(1);
  input& in = once("", [] { return input(all, most_sequences * all.W); });
  stretches s(in, B, N);
  kvevict::keep_set keep;
  kvevict::query_rows const q = s.queries();
  std::int32_t i = 0;
  auto const run = [&] {
    i = (i + 1) % s.count();
    if (which == kernel::window_scores)
      kernels::window_scores(c.ctx, s.view(i), q, kvevict::window_options{all.W}, s.out(i));
    else if (which == kernel::squared_norms)
      kernels::squared_norms(c.ctx, s.view(i), in.view().components[0], s.out(i));
    else
      kernels::select_best(c.ctx, s.out(i), keep);
  };
  if (which == kernel::select) kernels::squared_norms(c.ctx, in.view(), in.view().components[0], in.out());
  run();
  if (!right(s, i, which, keep)) return state.SkipWithError("wrong result");
  for (auto _ : state) run();
  count(state, c, double(B) * N, 0, 0, bound::cache);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<std::int32_t, std::int32_t>> sizes;
  for (std::int32_t N = 4096; N <= all.N; N *= 4) sizes.emplace_back(1, N);
  for (std::int32_t B = 4; B <= most_sequences; B *= 4) sizes.emplace_back(B, 4096);
  std::pair<kernel, char const*> const of[] = {
      {kernel::window_scores, "window_scores"}, {kernel::squared_norms, "squared_norms"}, {kernel::select, "select"}};
  for (auto const& [which, name] : of)
    for (auto const& [B, N] : sizes)
      add(std::string("growth/") + name + "/N:" + std::to_string(N) + "/B:" + std::to_string(B), 1,
          [which = which, B = B, N = N](benchmark::State& state) { grow(state, which, B, N); });
  return run_added(argc, argv);
}
