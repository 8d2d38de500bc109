// SPDX-License-Identifier: Apache-2.0
// On the real model: compacted attention equals masked attention over the full cache, for every preset, page size and
// kind of table.
//   engine_check_eviction MODEL_DIR reference.json
#include <cstdio>

#include "../compare/policies.hpp"

using namespace llama;

namespace {

int failures = 0;
void report(std::string const& what, bool good, double value) {
  if (!good) ++failures;
  std::printf("%-4s %-78s %g\n", good ? "ok" : "FAIL", what.c_str(), value);
}

/// softmax(q·k/√D)·v over the given slots of one head, in `Real`.
template <class Real, class Slots>
std::vector<double> attention(kvevict::layer_view<> const& view, int h, float const* query, int D, Slots const& slots) {
  std::vector<Real> weight, out(std::size_t(D), 0);
  Real peak = -1e30f, total = 0;
  for (auto j : slots) {
    auto const* k = reinterpret_cast<float const*>(view.row(*view.find(kvevict::role::k), 0, h, j));
    Real z = 0;
    for (int d = 0; d < D; ++d) z += Real(query[d]) * Real(k[d]);
    weight.push_back(z / std::sqrt(Real(D)));
    peak = std::max(peak, weight.back());
  }
  for (auto& w : weight) total += w = std::exp(w - peak);
  std::size_t i = 0;
  for (auto j : slots) {
    auto const* v = reinterpret_cast<float const*>(view.row(*view.find(kvevict::role::v), 0, h, j));
    for (int d = 0; d < D; ++d) out[std::size_t(d)] += weight[i] / total * Real(v[d]);
    ++i;
  }
  return {out.begin(), out.end()};
}

double distance(std::vector<double> const& a, std::vector<double> const& b) {
  double apart = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    apart = std::max(apart, std::abs(a[i] - b[i])), size = std::max(size, std::abs(b[i]));
  return apart / size;
}

/// The worst error over the heads of a layer: masked attention of the last prompt token before, compacted attention
/// after.
template <class Compact>
double worst_error(kvevict::layer_view<> const& view, kvevict::keep_set const& keep, config const& cfg,
                   float const* query, Compact&& compact) {
  std::vector<std::vector<double>> masked;
  for (int hq = 0; hq < cfg.heads; ++hq)
    masked.push_back(
        attention<double>(view, hq / cfg.group(), query + hq * cfg.head_dim, cfg.head_dim, keep(0, hq / cfg.group())));
  compact();
  double worst = 0;
  for (int hq = 0; hq < cfg.heads; ++hq) {
    int const h = hq / cfg.group();
    std::vector<int> front(std::size_t(keep(0, h).size));
    std::iota(front.begin(), front.end(), 0);
    worst = std::max(worst, distance(attention<float>(view, h, query + hq * cfg.head_dim, cfg.head_dim, front),
                                     masked[std::size_t(hq)]));
  }
  return worst;
}

/// The same layer in pages (2,pages,P,H,D) that all heads share, as vLLM has it.
struct shared_cache {
  shared_cache(kvevict::layer_view<> const& from, int N, int P, int H, int D)
      : table(std::size_t((N + P - 1) / P)), length(N), data(2 * table.size() * std::size_t(P * H * D)) {
    std::iota(table.begin(), table.end(), 0);
    view.pages = {.entries = table.data(),
                  .seq_stride = std::ssize(table),
                  .sequences = 1,
                  .heads = H,
                  .columns = int(table.size()),
                  .page_size = P};
    view.lengths = {&length};
    for (auto what : {kvevict::role::k, kvevict::role::v}) {
      kvevict::component c;
      c.what = what;
      c.rows = {.base = reinterpret_cast<std::byte*>(data.data() + (what == kvevict::role::v ? data.size() / 2 : 0)),
                .page_count = std::ssize(table),
                .page_stride = 4ll * P * H * D,
                .head_stride = 4ll * D,
                .slot_stride = 4ll * H * D,
                .run_bytes = 4 * D};
      c.turned_by = from.find(what)->turned_by;
      view = view.with(c);
      for (int h = 0; h < H; ++h)
        for (int j = 0; j < N; ++j)
          std::memcpy(view.row(c, 0, h, j), from.row(*from.find(what), 0, h, j), std::size_t(4 * D));
    }
  }
  std::vector<std::int32_t> table;
  std::int32_t length;
  std::vector<float> data;
  kvevict::layer_view<> view;
};

/// One preset on every layer of one cache; returns the keep sets.
template <class Policy>
std::vector<kvevict::keep_set> check_preset(kvevict::host& ctx, engine& e, sequence const& base, record const& seen,
                                            std::string const& name, Policy const& policy, int P) {
  auto seq = base.fork();
  auto const& cfg = e.cfg();
  sequence* const one[] = {&seq};
  std::vector<kvevict::keep_set> all;
  double per_head = 0, shared = 0;
  int refused = 0, freed = 0, N = base.next_position;
  int const used = seq.pool().used_pages();
  for (int l = 0; l < cfg.layers; ++l) {
    layer_cache const cache(one, l);
    auto const view = cache.view();
    float const* query = seen.queries[std::size_t(l)].data() + std::ptrdiff_t(N - 1) * cfg.heads * cfg.head_dim;
    auto const evidence = [&](auto const& v) { return prompt_of(v, seen, e, l); };
    kvevict::budget const want{.tokens_per_head = N / 5, .layer = l, .layer_count = cfg.layers};
    shared_cache other(view, N, P, cfg.kv_heads, cfg.head_dim);
    auto const keep = kvevict::plan(ctx, policy, evidence(view), want);
    auto const masks = other.view.with_capability({.masked = true});  // whatever compaction makes of it
    auto const same = kvevict::plan(ctx, policy, evidence(masks), want);
    if (same.tokens != keep.tokens)
      report(name + ": another keep set on a shared table, layer " + std::to_string(l), false, -1);
    try {
      shared =
          std::max(shared, worst_error(other.view, same, cfg, query, [&] { kvevict::compact(ctx, other.view, same); }));
    } catch (kvevict::contract_violation const&) {
      ++refused;
    }
    per_head = std::max(per_head, worst_error(view, keep, cfg, query, [&] {
                          auto const done = kvevict::compact(ctx, view, keep);
                          freed += int(done.freed_pages().size);
                          cache.truncate(done.lengths());
                        }));
    all.push_back(keep);
  }
  std::string const at = name + ", page size " + std::to_string(P);
  report(at + ": compacted against masked, per-head tables", per_head <= 1e-5, per_head);
  if (Policy::equal_counts)
    report(at + ": the same on a shared table", refused == 0 && shared <= 1e-5, shared);
  else
    report(at + ": ragged layers refused on a shared table", refused > 0 && shared <= 1e-5, refused);
  report(at + ": freed pages are back in the pool", freed == used - seq.pool().used_pages(), freed);
  return all;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: engine_check_eviction MODEL_DIR reference.json");
  model const m(argv[1]);
  auto text = read_json(argv[2]).at("perplexity").at("ids").get<std::vector<int>>();
  text.resize(600);
  engine e(m);
  kvevict::host ctx(openmp());
  std::map<std::string, std::vector<kvevict::keep_set>> first;
  for (int P : {1, 16, 64, 256}) {
    kv_pool pool(3 * (600 / P + 1) * m.cfg.layers * m.cfg.kv_heads, P, m.cfg.head_dim);
    auto base = e.start(pool);
    record seen;
    e.prefill(base, text, 1, &seen);
    compare::for_each_preset({}, 1, [&](std::string const& name, auto const& policy) {
      auto const found = check_preset(ctx, e, base, seen, name, policy, P);
      auto const& expected = first.try_emplace(name, found).first->second;
      bool same = true;
      for (std::size_t l = 0; l < found.size(); ++l) same &= found[l].tokens == expected[l].tokens;
      if (!same) report(name + ": another keep set at page size " + std::to_string(P), false, -1);
    });
  }
  std::printf("%s\n", failures == 0 ? "eviction on the real model: all good" : "eviction on the real model: FAILED");
  return failures == 0 ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "engine_check_eviction: %s\n", error.what());
  return 2;
}
