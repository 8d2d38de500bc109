// SPDX-License-Identifier: Apache-2.0
// What every preset costs on a model's shape, beside that model's own work; bench/run.sh cost builds it.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <fstream>
#include <thread>

#include "compare/presets.hpp"
#include "cost/layer.hpp"
#include "support/prefill.hpp"
#include "support/roof.hpp"

#include <kvevict/threads.hpp>

namespace {

using namespace cost;

struct job {
  shape of;
  std::int32_t budget = 1024;
  int threads = 1;
  kvevict::host* ctx = nullptr;
};

/// Of one layer.
struct cost_of_preset {
  std::string preset{}, refused{};
  double plan_us = 0, move_us = 0, observe_us = 0, scratch = 0, freed = 0;
  bool own_tables = false;  // heads keep different counts, so that each needs a table of its own

  double us() const { return plan_us + move_us; }
};

/// The model's own work, in seconds: attention of a prompt's prefill, a decode step over the whole cache, and over one
/// that is held at the budget.
struct own_work {
  double prefill, step, held_step;
};

/// The median of up to nine tries, fewer where one takes long; `before` is not timed.
template <class Before, class Once> double median_us(int threads, Before&& before, Once&& once) {
  std::vector<double> tries;
  for (double spent = 0; tries.size() < 9 && spent < 0.3e6; spent += tries.back()) {
    before();
    double const start = bench::seconds(threads);
    once();
    tries.push_back((bench::seconds(threads) - start) * 1e6);
  }
  std::sort(tries.begin(), tries.end());
  return tries[tries.size() / 2];
}

/// Every kept row is in its place, with its bytes.
void check(layer& now, layer& before, kvevict::keep_set const& keep) {
  for (std::int32_t c = 0; c < now.view().component_count; ++c) {
    auto const &is = now.view().components[std::size_t(c)], &was = before.view().components[std::size_t(c)];
    for (std::int64_t r = 0; r < keep.rows(); ++r)
      for (std::int64_t i = 0; i < keep.row(r).size; ++i)
        if (std::memcmp(now.view().row(is, 0, std::int32_t(r), i),
                        before.view().row(was, 0, std::int32_t(r), keep.row(r)[i]),
                        std::size_t(is.rows.run_bytes)) != 0)
          throw std::runtime_error("a kept row is not where it should be");
  }
}

/// Refused before the machine begins to swap: a layer and its copy, each with the queries of the whole prompt.
void expect_memory(shape const& s) {
  double const queries = double(s.tokens) * s.of.q_heads * s.of.head_dim * 4,
               needed = 2 * (s.cache_bytes() + queries) / (1 << 30),
               there = double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGESIZE)) / (1 << 30);
  if (needed <= there) return;
  char text[160];
  std::snprintf(text, sizeof text,
                "--n %d: a layer's cache and queries, twice, take %.0f GiB, and this machine has %.0f; give fewer "
                "tokens or a smaller shape",
                s.tokens, needed, there);
  throw std::runtime_error(text);
}

/// Of one token while the cache is held at the budget, which is `l`'s length.
template <class Policy> double observe_us(job const& j, layer& l, Policy const& policy, kvevict::budget const& b) {
  if constexpr (requires { policy.score.state_floats(); }) {
    auto const rows = kvevict::step(l.with_state(policy.score.state_floats()), l.queries(1))
                          .with_older(kvevict::older_tokens::observed);
    auto const time = [&](auto const& evidence) {
      return median_us(
          j.threads, [] {}, [&] { kvevict::observe(*j.ctx, policy, evidence, b); });
    };
    std::vector<float> const lse(std::size_t(j.of.of.q_heads), 32.0f);  // above that of any row: the work is the same
    auto const with_lse = rows.with_lse(lse.data(), j.of.of.q_heads, 1).partial();
    if constexpr (requires { kvevict::observe(*j.ctx, policy, with_lse, b); })
      return time(with_lse);
    else
      return time(rows);
  }
  return 0;
}

template <class Policy> cost_of_preset measure(job const& j, std::string const& name, Policy const& policy) {
  auto const& s = j.of;
  cost_of_preset out{name};
  out.own_tables = !Policy::equal_counts && s.of.kv_heads > 1;
  table const kind = out.own_tables ? table::of_head : table::of_sequence;
  layer now(s, kind), before(s, kind);
  kvevict::budget const b{.tokens_per_head = j.budget, .layer = s.of.layers / 2, .layer_count = s.of.layers};
  auto const evidence =
      kvevict::prompt(now.with_output_norms(), now.queries(s.tokens)).with_rope(kvevict::rope{.base = 500000});
  kvevict::keep_set keep;
  out.plan_us = median_us(
      j.threads, [] {}, [&] { kvevict::plan(*j.ctx, policy, evidence, b, keep); });
  kvevict::compacted<std::int32_t> done;
  out.move_us = median_us(
      j.threads, [&] { now.memory() = before.memory(); },
      [&] { kvevict::compact(*j.ctx, now.view(), keep, kvevict::compaction::stable, done); });
  check(now, before, keep);
  out.freed = s.cache_bytes() * (1 - double(keep.kept()) / (double(s.tokens) * s.of.kv_heads));
  std::int64_t const pages = std::int64_t{now.view().pages.columns} * (out.own_tables ? s.of.kv_heads : 1);
  out.scratch = double(kvevict::workspace_bytes(
      *j.ctx, policy, {1, s.of.q_heads, s.of.kv_heads, s.of.head_dim, s.tokens, pages, pages}));
  shape held = s;
  held.tokens = std::min(s.tokens, j.budget);
  layer decoding(held, kind);
  out.observe_us = observe_us(j, decoding, policy, b);
  return out;
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, x >= 99.5 ? "%.0f" : "%.3g", x);
  return text;
}

void print(job const& j, std::vector<cost_of_preset> const& all, own_work const& own) {
  auto const& m = j.of.of;
  std::printf("%s: %d layers, Hq %d, H %d, D %d; %d tokens, %s, layout %s, budget %d a head; %d thread%s.\n", m.name,
              m.layers, m.q_heads, m.kv_heads, m.head_dim, j.of.tokens, kvevict::name_of(j.of.type),
              j.of.layout.c_str(), j.budget, j.threads, j.threads == 1 ? ", CPU time" : "s, wall time");
  std::printf(
      "Prefill attention by plain Eigen: %s s a prompt. A decode step reads %s·10⁹ weights in bf16 and the cache: "
      "%s ms, %s at the budget.\n\n",
      number(own.prefill).c_str(), number(m.active / 1e9).c_str(), number(own.step * 1e3).c_str(),
      number(own.held_step * 1e3).c_str());
  std::puts(
      "| preset | plan, µs a layer | compact | ms a prompt | of prefill attention | decode steps | observe, of a step "
      "| scratch, KiB | freed, MiB a prompt |");
  std::puts("|---|---|---|---|---|---|---|---|---|");
  for (auto const& c : all) {
    if (!c.refused.empty()) {
      std::printf("| %s | %s |\n", c.preset.c_str(), c.refused.c_str());
      continue;
    }
    double const prompt = c.us() * m.layers * 1e-6;
    std::string const observed =
        c.observe_us > 0 ? number(100 * c.observe_us * m.layers * 1e-6 / own.held_step) + " %" : "–";
    std::printf("| %s%s | %s | %s | %s | %s %% | %s | %s | %s | %s |\n", c.preset.c_str(), c.own_tables ? " *" : "",
                number(c.plan_us).c_str(), number(c.move_us).c_str(), number(prompt * 1e3).c_str(),
                number(100 * prompt / own.prefill).c_str(), number(prompt / own.step).c_str(), observed.c_str(),
                number(c.scratch / 1024).c_str(), number(c.freed * m.layers / (1 << 20)).c_str());
  }
  std::puts(
      "\n* heads keep different counts: a page table for each. observe: of one token, the cache held at the budget, "
      "with the engine's LSE where the policy takes one.");
}

void write_csv(std::ofstream& out, job const& j, std::vector<cost_of_preset> const& all, own_work const& own) {
  out << "model,layers,q_heads,kv_heads,head_dim,tokens,type,layout,budget,threads,preset,plan_us,compact_us,"
         "observe_us,scratch_bytes,freed_bytes,prefill_attention_s,decode_step_s,held_step_s\n";
  auto const& m = j.of.of;
  for (auto const& c : all)
    if (c.refused.empty())
      out << m.name << ',' << m.layers << ',' << m.q_heads << ',' << m.kv_heads << ',' << m.head_dim << ','
          << j.of.tokens << ',' << kvevict::name_of(j.of.type) << ',' << j.of.layout << ',' << j.budget << ','
          << j.threads << ',' << c.preset << ',' << c.plan_us << ',' << c.move_us << ',' << c.observe_us << ','
          << c.scratch << ',' << c.freed * m.layers << ',' << own.prefill << ',' << own.step << ',' << own.held_step
          << '\n';
  if (!out.flush()) throw std::runtime_error("--csv: the file could not be written to its end");
}

}  // namespace

int main(int argc, char** argv) try {
  job j;
  std::string name = "llama-3.1-8b", type = "f32", csv;
  std::int32_t layers = 0, q_heads = 0, kv_heads = 0, head_dim = 0;
  double parameters = 0;
  CLI::App app{"What every preset costs on a model's shape: a table as Markdown"};
  app.add_option("--model", name, "llama-3.1-8b, qwen3-8b, … (a wrong name lists all)");
  app.add_option("--layers", layers, "in place of the model's")->check(CLI::Range(1, 1000));
  app.add_option("--hq", q_heads, "query heads, in place of the model's")->check(CLI::Range(1, 1024));
  app.add_option("--kv-heads,-H,--h", kv_heads, "KV heads, in place of the model's")->check(CLI::Range(1, 1024));
  app.add_option("--d", head_dim, "elements of a head, in place of the model's")->check(CLI::Range(1, 1024));
  app.add_option("--params", parameters, "10⁹ weights that a decode step reads, in place of the model's")
      ->check(CLI::Range(0.001, 100000.0));
  app.add_option("--n", j.of.tokens, "tokens of the prompt")->check(CLI::Range(64, 1 << 20));
  app.add_option("--budget", j.budget, "tokens that a head keeps")->check(CLI::Range(1, 1 << 20));
  app.add_option("--dtype", type, "of the cache")->check(CLI::IsMember({"f32", "bf16", "f16"}));
  app.add_option("--layout", j.of.layout, "of the pages")->check(CLI::IsMember({"vllm", "nhd", "hnd", "contiguous"}));
  int const cores = std::max(1, int(std::thread::hardware_concurrency()));
  app.add_option("--threads", j.threads, "at most one a core: attention is taken to gain from each")
      ->check(CLI::Range(1, cores));
  app.add_option("--csv", csv, "also writes this file");
  CLI11_PARSE(app, argc, argv);
  model m = model_named(name);
  if (layers + q_heads + kv_heads + head_dim > 0) m.name = "own shape";
  if (layers > 0) m.layers = layers;
  if (q_heads > 0) m.q_heads = q_heads;
  if (kv_heads > 0) m.kv_heads = kv_heads;
  if (head_dim > 0) m.head_dim = head_dim;
  if (parameters > 0) m.active = parameters * 1e9;
  if (m.q_heads % m.kv_heads != 0)
    throw std::runtime_error(std::to_string(m.q_heads) + " query heads are no multiple of " +
                             std::to_string(m.kv_heads) + " KV heads; give --hq and --h that fit each other");
  if (m.latent_v >= m.head_dim)
    throw std::runtime_error("--d " + std::to_string(m.head_dim) + ": a row of " + name + " holds a latent V of " +
                             std::to_string(m.latent_v) +
                             " elements and the key's rotary part; give more, or a model "
                             "without a latent cache");
  j.of.of = m;
  j.of.type = type == "f32" ? kvevict::dtype::f32 : type == "bf16" ? kvevict::dtype::bf16 : kvevict::dtype::f16;
  expect_memory(j.of);
  std::ofstream out;
  if (!csv.empty() && (out.open(csv), !out)) throw std::runtime_error("--csv " + csv + ": cannot be written");
  kvevict::threads pool(j.threads);
  kvevict::host ctx(pool.as_executor());
  j.ctx = &ctx;
  double const read = bench::roof(j.threads).measure(ctx, bench::bound::memory);
  auto const step = [&](shape const& of) { return (m.active * 2 + of.cache_bytes() * m.layers) / read; };
  shape held = j.of;
  held.tokens = std::min(held.tokens, j.budget);
  own_work const own{
      bench::prefill_attention(m.q_heads, m.kv_heads, m.head_dim, j.of.tokens).measure() * m.layers / j.threads,
      step(j.of), step(held)};
  std::vector<cost_of_preset> all;
  compare::for_each_preset({}, 1, [&](char const* preset, auto const& policy) {
    std::fprintf(stderr, "%s\n", preset);
    try {
      all.push_back(measure(j, preset, policy));
    } catch (kvevict::contract_violation const& refused) {
      all.push_back({preset, refused.what()});
    }
  });
  print(j, all, own);
  if (!csv.empty()) write_csv(out, j, all, own);
} catch (std::exception const& error) {
  std::fprintf(stderr, "cost: %s\n", error.what());
  return 2;
}
