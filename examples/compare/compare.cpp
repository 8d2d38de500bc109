// SPDX-License-Identifier: Apache-2.0
// The main job: every preset at every budget on a real model, on needle prompts, natural text and while decoding.
#include <CLI/CLI.hpp>

#include "decode.hpp"
#include "text.hpp"

namespace {

using namespace compare;

double cost_of(json const& prompt) {  // of one needle prompt, roughly in seconds
  double const n = double(prompt.at("context").size()) / 1000;
  return 5 + 8 * n + 3 * n * n;
}

/// The names of all policies, with a space before each.
std::string all_names() {
  std::string list = " oracle attention_gate";
  for_each_preset({}, settings{}, [&](std::string const& name, auto const&) { list += " " + name; });
  return list;
}

/// How many presets take part; a wanted name that none has is refused.
int count_presets(settings const& s) {
  std::string const known = all_names();
  for (auto const& name : s.policies)
    if ((known + " ").find(" " + name + " ") == std::string::npos)
      throw std::runtime_error("no policy is called " + name + "; there are" + known);
  int count = s.wanted("oracle");
  for_each_preset({}, s, [&](std::string const&, auto const&) { ++count; });
  return count;
}

llama::kv_pool pool_for(llama::config const& cfg, int page_size, double tokens) {
  return {std::int64_t(tokens / page_size * 1.1 + 64) * cfg.layers * cfg.kv_heads, page_size, cfg.head_dim};
}

/// Decode speed and cache of the full cache and of one budget as the context grows.
json growth(llama::engine& e, kvevict::host& ctx, json const& passage, int page_size, int budget, int longest) {
  json out = json::array();
  auto const text = passage.at("context").get<ids>();
  auto pool = pool_for(e.cfg(), page_size, 3.1 * longest);
  auto seq = e.start(pool);
  for (int n = 512; n <= std::min(longest, int(text.size())); n *= 2) {
    llama::record seen;
    e.prefill(seq, std::span(text).subspan(std::size_t(seq.next_position), std::size_t(n - seq.next_position)), 1,
              &seen);
    auto full = seq.fork(), cut = seq.fork();
    auto const cost = evict(ctx, cut, kvevict::presets::snapkv(), budget,
                            [&](auto const& view, int l) { return llama::prompt_of(view, seen, e, l); });
    out.push_back({{"context", n},
                   {"full", decode_rate(e, full, 1)},
                   {"evicted", decode_rate(e, cut, 1)},
                   {"budget", budget},
                   {"bytes_full", cost.bytes_before},
                   {"bytes_evicted", cost.bytes_after}});
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  std::string model_dir, tasks_file, out_dir;
  std::vector<std::string> gate_files;
  int page_size = 16;
  CLI::App app{"Compares the presets on a prepared model; run examples/run.sh, which prepares it"};
  app.add_option("--model", model_dir, "directory that prepare.py printed")->required();
  app.add_option("--tasks", tasks_file, "what tasks.py wrote")->required();
  app.add_option("--out", out_dir, "where results.csv and details.json go")->required()->check(CLI::ExistingDirectory);
  app.add_option("--gates", gate_files, "trained gates of this model (safetensors)");
  settings s;
  app.add_flag_callback(
      "--list", [] { std::exit(std::puts(all_names().c_str()) < 0); }, "prints the policies' names");
  app.add_option("--policies", s.policies, "names, with commas between them; all unless said")->delimiter(',');
  app.add_option("--shares", s.shares, "tokens kept, per cent of the prompt")->delimiter(',')->check(CLI::Range(1, 99));
  app.add_option("--page-size", page_size, "tokens per page")->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);

  json const tasks = llama::read_json(tasks_file);
  llama::model const m(model_dir);
  llama::engine e(m);
  kvevict::host ctx(llama::openmp());
  int const presets = count_presets(s);
  s.seed = tasks.at("seed");
  if (s.wanted("attention_gate"))
    for (auto const& file : gate_files) s.gates.emplace_back(file, m);
  table results(m.cfg.layers, m.cfg.kv_heads, s.seed);
  json details;
  int const steps = tasks.contains("decode") ? tasks.at("decode_tokens").get<int>() : 0;
  double const of_growth = tasks.contains("growth") ? 9 : 0, of_decoding = 0.14 * steps;
  double kept = 0;  // by one preset, of each prompt
  for (int share : s.shares) kept += share / 100.0;
  double const contestants = presets / 13.0 * (double(s.shares.size()) / 3 + 0.4 * double(s.gates.size()));
  double const per_text = contestants * (tasks.at("both_structures") ? 66 : 33);
  double work = per_text * double(tasks.at("text").size()) + of_decoding + of_growth;
  for (auto const& p : tasks.at("needle")) work += contestants * cost_of(p);
  progress bar(work);

  double longest = 0;
  for (auto const& p : tasks.at("needle"))
    longest = std::max(longest, double(p.at("context").size() + p.at("question").size()));
  {
    auto pool =
        pool_for(m.cfg, page_size, (4 + kept * presets + 8 * presets / 13.0 * double(s.gates.size())) * longest);
    if (!s.gates.empty()) pool.add_keep();
    needle prompts(e, ctx, pool, s, results);
    for (auto const& p : tasks.at("needle")) {
      prompts.run(p);
      bar.advance(contestants * cost_of(p), "needle prompt, " + p.at("task").get<std::string>());
    }
  }
  for (auto const& p : tasks.at("text")) {
    auto pool = pool_for(m.cfg, page_size, 8.0 * double(p.at("context").size() + p.at("follow").size()));
    if (!s.gates.empty()) pool.add_keep();
    text passage(e, ctx, pool, s, results);
    passage.run(p, {}, "", details[p.at("task").get<std::string>()]);
    if (tasks.at("both_structures")) passage.run(p, {.sinks = 4}, "_4_sinks", details);
    bar.advance(per_text, "text, " + p.at("task").get<std::string>());
  }
  if (tasks.contains("decode")) {
    auto const& p = tasks.at("decode");
    auto pool = pool_for(m.cfg, page_size, 11.0 * double(p.at("context").size()) + 2.0 * steps);
    decode_beside(e, ctx, pool, s, results, p, steps, bar, of_decoding);
  }
  if (tasks.contains("growth")) {
    details["growth"] = growth(e, ctx, tasks.at("growth"), page_size, 256, tasks.at("growth_tokens"));
    bar.advance(of_growth, "decode speed against context");
  }
  results.write(out_dir + "/results.csv");
  details["model"] = tasks.at("model");
  details["page_size"] = page_size;
  details["threads"] = omp_get_max_threads();
  if (!tasks.at("text").empty()) details["oracle_rows"] = tasks.at("text").at(0).at("follow").size();
  if (!(std::ofstream(out_dir + "/details.json") << details << std::flush))
    throw std::runtime_error(out_dir + "/details.json: cannot be written");
} catch (std::exception const& error) {
  std::fprintf(stderr, "compare: %s\n", error.what());
  return 2;
}
