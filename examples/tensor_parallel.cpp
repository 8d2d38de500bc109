// SPDX-License-Identifier: Apache-2.0
// Tensor parallelism: every process holds some heads of each layer, and one threshold over all of them decides what
// stays. `mpirun -n 4 example_tensor_parallel` keeps, bit for bit, what one process would; it plans that, too, to see.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include <mpi.h>

#include <kvevict/engines/contiguous.hpp>
#include <kvevict/heads/over_ranks.hpp>
#include <kvevict/kvevict.hpp>

namespace {

constexpr int L = 4, H = 8, G = 2, N = 300, W = 16, D = 16, tokens_per_head = 60;
constexpr auto policy = kvevict::presets::ada_snapkv({.window = W, .pool = 7});

/// Sums over all processes, in place. Over NCCL this is ncclAllReduce of a buffer, over gloo its allreduce.
struct sum_over_processes {
  std::int64_t* bytes;
  void operator()(std::uint64_t* counts, std::int64_t n) const {
    MPI_Allreduce(MPI_IN_PLACE, counts, static_cast<int>(n), MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    *bytes += 8 * n;
  }
};

/// Heads [first, first + count) of every layer: contiguous caches and the window's queries, the same in any process.
struct shard {
  int first, count;
  std::vector<float> keys, values, queries;      // (L, count, N, D), (L·W, count·G, D)
  std::vector<std::int32_t> lengths, row_begin;  // (L, count), (L + 1)

  shard(int begin, int heads) : first(begin), count(heads), lengths(std::size_t(L * heads), N) {
    queries.resize(std::size_t(L * W * count * G * D));
    for (int l = 0; l < L; ++l) {
      row_begin.push_back(l * W);
      for (int h = 0; h < count; ++h) {
        std::mt19937 bits(static_cast<unsigned>(l * H + first + h));
        std::normal_distribution<float> normal(0, 1.0f + 0.2f * static_cast<float>((first + h + l) % H));
        for (int i = 0; i < N * D; ++i) keys.push_back(normal(bits)), values.push_back(normal(bits));
        for (int w = 0; w < W; ++w)
          for (int i = 0; i < G * D; ++i) queries[std::size_t(((l * W + w) * count + h) * G * D + i)] = normal(bits);
      }
    }
    row_begin.push_back(L * W);
  }
  /// All layers in one view: a stack of L sequences.
  kvevict::layer_view<> cache() {
    kvevict::pages::sizes const s{1, N, count, D, kvevict::dtype::f32};
    auto v = kvevict::engines::contiguous::view_by_head(keys.data(), values.data(), s, lengths.data());
    v.pages.sequences = v.pages.layers = L;
    for (int c = 0; c < v.component_count; ++c)
      v.components[std::size_t(c)].rows.layer_stride = std::int64_t{4} * count * N * D;
    return v;
  }
  template <class Heads> kvevict::keep_set plan(kvevict::host& ctx, Heads heads, kvevict::budget const& b) {
    kvevict::query_rows const rows{.data = queries.data(),
                                   .token_stride = std::int64_t{count} * G * D,
                                   .head_stride = D,
                                   .heads = count * G,
                                   .head_dim = D,
                                   .row_begin = row_begin.data()};
    return kvevict::plan(ctx, policy.with(heads), kvevict::prompt(cache(), rows), b);
  }
};

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank), MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > H) {  // each needs a head
    if (rank == 0)
      std::fprintf(stderr, "tensor_parallel: %d processes for %d KV heads; start at most %d\n", size, H, H);
    return MPI_Finalize(), 2;
  }
  std::int64_t bytes = 0;
  sum_over_processes const sum{&bytes};
  kvevict::host ctx;
  shard mine(rank * H / size, (rank + 1) * H / size - rank * H / size), all(0, H);

  kvevict::budget const ask{.tokens_per_head = tokens_per_head, .layer_count = L, .head = mine.first, .head_count = H};
  std::vector<std::int32_t> lengths;
  auto const b = kvevict::budget_of_ranks(ctx, mine.cache(), ask, sum, lengths);
  auto const keep = mine.plan(ctx, kvevict::heads::over_ranks{sum, H}, b);

  kvevict::budget const alone{.tokens_per_head = tokens_per_head, .layer_count = L};
  auto const want = all.plan(ctx, kvevict::heads::over_layers{}, alone);
  std::uint64_t found[] = {0, 0};  // tokens kept, rows that differ
  for (int l = 0; l < L; ++l)
    for (int h = 0; h < mine.count; ++h) {
      auto const a = keep(l, h), one = want(l, mine.first + h);
      found[0] += static_cast<std::uint64_t>(a.size);
      found[1] += a.size != one.size || !std::equal(a.begin(), a.end(), one.begin());
    }
  MPI_Allreduce(MPI_IN_PLACE, found, 2, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
  if (rank == 0)
    std::printf("%d processes keep %d tokens of %d, as one does; each handed over %d bytes\n", size, int(found[0]),
                L * H * N, int(bytes));
  MPI_Finalize();
  return found[0] == std::uint64_t{L * H * tokens_per_head} && found[1] == 0 ? 0 : 1;
}
