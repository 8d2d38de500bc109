// SPDX-License-Identifier: Apache-2.0
// Every fixture and every key of it is either checked by a test of this folder or named here with the reason why it is
// not.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/golden.hpp"

namespace coverage_test {

namespace {

struct entry {
  char const* file;
  char const* keys;           // a regular expression over the keys of the object, or of the cases of an array
  char const* not_covered{};  // why, or null: covered
};

constexpr entry table[] = {
    {"inputs", "B|Hq|Hkv|d|L|note|Qpre|Kpre|V|Wo"},
    {"h2o_prefill", "note|lse_natural|lse_base2|column_sums|rows_that_see|column_means"},
    {"h2o_real_drop", "note|hh|recent|heads|L0|rows"},
    {"ahakv", "note|cases"},
    {"ada_official",
     "cap|window|alpha|pool|kernel|gqa|normalize|pyramid|layer|layers|beta|L|Hkv|groups|d|K|Qwin|scores|head_lens|cu_"
     "klen|"
     "base_capacity|floor_capacity|kept_sorted|boundary_margin"},
    {"head_budget_kvpress", "H|L|ratio|alpha|scores|distinct|kept_adakv|V|Wo|kept_criticaladakv"},
    {"layer_budgets", "impl|layers|L|ratio|cap|window|beta|budgets"},
    {"scores_kvpress",
     "note|tova|snapkv_w\\d+_k\\d+_(avg|max)|knorm|keydiff|lagkv_.*|observed_attention|streaming_r[0-9.]+_sink\\d+|"
     "criticalkv_.*|wo_v_l1norm|expected_attention_.*"},
    {"attention_gate",
     "note|gate_heads|gate_width|tau|X|Wq|Wk|Wv|Wo|b|p_causal|p_bidirectional|keep_causal_sinks2_recent4"},
    {"kvpress",
     "model|layer|layer_count|ratio|window|chunk|lag|beta|sinks|rope_base|Q|K|V|snapkv|tova|pyramidkv|pyramidkv_counts|"
     "ada_snapkv_.*|ada_keydiff_200|keydiff|knorm|lagkv|streaming_llm|observed_attention|chunkkv|chunkkv_knorm|"
     "leverage|future|epsilon|expected_attention(_mean)?|Wo|criticalkv|ada_criticalkv"},
    {"rkv", ".*", "R-KV with the rule that zeroes the last similarity above 0.5, which presets::rkv does not have"},
    {"rerotate", "note|inv_freq|indices|keys_out"},
};

/// Keys of an object, or of all cases of an array.
std::set<std::string> keys_of(golden::json const& file) {
  std::set<std::string> out;
  auto const add = [&](golden::json const& object) {
    for (auto const& item : object.items()) out.insert(item.key());
  };
  if (file.is_array())
    std::for_each(file.begin(), file.end(), add);
  else
    add(file);
  return out;
}

entry const* find(std::string const& file, std::string const& key) {
  for (entry const& e : table)
    if (e.file == file && std::regex_match(key, std::regex(e.keys))) return &e;
  return nullptr;
}

}  // namespace

TEST_CASE("golden: every fixture is covered or listed as not covered") {
  std::vector<std::string> files;
  for (auto const& file : std::filesystem::directory_iterator(golden::directory()))
    if (file.path().extension() == ".json") files.push_back(file.path().stem().string());
  std::sort(files.begin(), files.end());
  REQUIRE_FALSE(files.empty());
  for (std::string const& file : files)
    for (std::string const& key : keys_of(golden::load(file))) {
      INFO(file << ".json has the key '" << key
                << "': check it in tests/golden, or list it in coverage_test.cpp with a reason");
      entry const* const e = find(file, key);
      CHECK(e != nullptr);
      if (e != nullptr && e->not_covered != nullptr)
        std::cout << "not covered: " << file << ".json " << key << ": " << e->not_covered << '\n';
    }
  std::size_t fall_backs = 0;
  if (std::find(files.begin(), files.end(), "layer_budgets") != files.end())
    for (auto const& c : golden::load("layer_budgets"))
      fall_backs += golden::value<std::string>(c, "impl") == "kvpress";
  std::cout << "not covered: layer_budgets.json, " << fall_backs
            << " cases of impl kvpress: they fall back to uniform budgets silently, a bug of theirs\n";
}

TEST_CASE("golden: the directory is taken from the environment") {
  char const* const chosen = std::getenv("KVEVICT_GOLDEN_DIR");
  std::cout << "golden fixtures: " << golden::directory().string() << '\n';
  if (chosen != nullptr && *chosen != '\0')
    CHECK(golden::directory() == std::filesystem::path(chosen));
  else
    CHECK(golden::directory() == std::filesystem::path(KVEVICT_GOLDEN_DEFAULT_DIR));
}

}  // namespace coverage_test
