// SPDX-License-Identifier: Apache-2.0
// The folders of include/kvevict are layers: a header includes its own folder and those to its left.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

struct source {
  std::string path;  // below include/kvevict
  std::string text;
};

constexpr int umbrella = 100;

/// Place in the order core → … → engines; the stages share one. -1: not a layer of the library.
int rank_of(std::string const& layer) {
  static std::map<std::string, int> const ranks{{"version.hpp", 0},
                                                {"core", 1},
                                                {"cache", 2},
                                                {"kernels", 3},
                                                {"evidence", 4},
                                                {"score", 5},
                                                {"heads", 5},
                                                {"layers", 5},
                                                {"select", 5},
                                                {"state", 5},
                                                {"policy.hpp", 6},
                                                {"apply", 7},
                                                {"presets", 8},
                                                {"cuda", 8},
                                                {"engines", 9},
                                                {"kvevict.hpp", umbrella},
                                                {"threads.hpp", umbrella}};
  auto const found = ranks.find(layer);
  return found == ranks.end() ? -1 : found->second;
}

std::string layer_of(std::string const& path) { return path.substr(0, path.find('/')); }

bool may_include(std::string const& from, std::string const& to) {
  if (to == "cuda") return from == "cuda";  // opt-in: nothing includes it
  int const a = rank_of(from), b = rank_of(to);
  return b != -1 && b != umbrella && (from == to || b < a);
}

/// What core/ may include besides the library: standard headers, and the compiler's own intrinsics.
bool is_standard(std::string const& header) {
  static std::regex const standard("[a-z_0-9]+");
  return std::regex_match(header, standard) || header == "immintrin.h" || header == "arm_neon.h";
}

std::string check_include(std::string const& layer, std::string const& header, bool quoted) {
  if (header.rfind("kvevict/", 0) == 0) {
    std::string const target = layer_of(header.substr(8));
    return may_include(layer, target) ? "" : "includes " + header + ", which is not to the left of " + layer;
  }
  if (quoted) return "includes \"" + header + "\"; write <kvevict/...>";
  if (layer != "threads.hpp" && (header.rfind("Eigen/", 0) == 0 || header.rfind("unsupported/Eigen/", 0) == 0))
    return "includes Eigen; only threads.hpp, which nothing includes, may";
  if (layer == "core" && !is_standard(header))
    return "core/ includes " + header + ", which is not the standard library";
  return "";
}

std::vector<std::string> violations(source const& file) {
  std::vector<std::string> found;
  auto const report = [&](std::string const& what) {
    if (!what.empty()) found.push_back(file.path + ": " + what);
  };
  std::string const layer = layer_of(file.path);
  if (rank_of(layer) == -1) report("is in no layer of the library");
  if (file.text.rfind("// SPDX-License-Identifier: Apache-2.0\n", 0) != 0)
    report("does not begin with the licence line");
  static std::regex const comment("\\n[ \t]*//[^\n]*");
  std::string const code = std::regex_replace(file.text, comment, "");
  if (std::count(code.begin(), code.end(), '\n') > 200) report("has more than 200 lines besides comments");
  static std::regex const device("<<<|\\b(?:__)?asm(?:__)?\\b|\\bcudaLaunch");
  if (layer != "cuda" && std::regex_search(file.text, device))
    report("launches kernels or contains assembly; only cuda/ may");
  static std::regex const include("(?:^|\n)[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]");
  for (std::sregex_iterator i(file.text.begin(), file.text.end(), include), end; i != end; ++i)
    report(check_include(layer, (*i)[2], (*i)[1] == "\""));
  return found;
}

std::vector<source> read_tree(std::filesystem::path const& root) {
  std::vector<source> files;
  for (auto const& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".hpp") continue;
    std::ifstream in(entry.path());
    files.push_back({entry.path().lexically_relative(root).generic_string(), {std::istreambuf_iterator<char>(in), {}}});
  }
  return files;
}

/// Violations of a header with the licence line and these includes.
std::size_t count(std::string const& path, std::string const& includes) {
  return violations({path, "// SPDX-License-Identifier: Apache-2.0\n" + includes + "\n"}).size();
}

}  // namespace

TEST_CASE("headers include only their own layer and those to its left") {
  auto const files = read_tree(KVEVICT_INCLUDE_DIR);
  REQUIRE_FALSE(files.empty());
  for (auto const& file : files)
    for (auto const& what : violations(file)) FAIL_CHECK(what);
}

TEST_CASE("the layer check lets right includes pass") {
  CHECK(count("kernels/a.hpp", "#include <kvevict/kernels/b.hpp>\n#include <kvevict/core/c.hpp>") == 0);
  CHECK(count("threads.hpp", "#include <unsupported/Eigen/CXX11/ThreadPool>\n#include <kvevict/core/a.hpp>") == 0);
  CHECK(count("core/a.hpp", "#include <cstdint>\n#  include <immintrin.h>\n#include <kvevict/core/b.hpp>") == 0);
  CHECK(count("score/a.hpp", "#include <kvevict/score/b.hpp>\n#include <kvevict/evidence/c.hpp>") == 0);
  CHECK(count("policy.hpp", "#include <kvevict/state/a.hpp>\n#include <kvevict/heads/b.hpp>") == 0);
  CHECK(count("cuda/a.hpp",
              "#include <kvevict/cuda/b.hpp>\n#include <kvevict/apply/c.hpp>\n#include <kvevict/policy.hpp>") == 0);
  CHECK(count("cuda/a.hpp", "asm(\"\"); f<<<1, 2>>>();") == 0);
  CHECK(count("kvevict.hpp", "#include <kvevict/version.hpp>\n#include <kvevict/engines/a.hpp>") == 0);
}

TEST_CASE("the layer check finds wrong includes") {
  CHECK(count("core/a.hpp", "#include <kvevict/cache/b.hpp>") == 1);
  CHECK(count("core/a.hpp", "#include <Eigen/Core>") == 1);
  CHECK(count("core/a.hpp", "#include <nlohmann/json.hpp>") == 1);
  CHECK(count("core/a.hpp", "#include <stdio.h>") == 1);
  CHECK(count("cache/a.hpp", "#include <cstdint>\n #include <Eigen/Core>") == 1);
  CHECK(count("kernels/a.hpp", "#include <Eigen/Core>") == 1);
  CHECK(count("kvevict.hpp", "#include <kvevict/threads.hpp>") == 1);
  CHECK(count("presets/a.hpp", "#include <unsupported/Eigen/CXX11/Tensor>") == 1);
  CHECK(count("score/a.hpp", "#include <kvevict/heads/b.hpp>") == 1);
  CHECK(count("score/a.hpp", "#include <kvevict/state/b.hpp>") == 1);
  CHECK(count("score/a.hpp", "#include <kvevict/policy.hpp>") == 1);
  CHECK(count("apply/a.hpp", "#include <kvevict/presets/b.hpp>") == 1);
  CHECK(count("apply/a.hpp", "#include \"b.hpp\"") == 1);
  CHECK(count("engines/a.hpp", "#include <kvevict/kvevict.hpp>") == 1);
  CHECK(count("kernels/a.hpp", "#include <kvevict/utils/b.hpp>") == 1);
  CHECK(count("utils/a.hpp", "") == 1);
  CHECK(count("kvevict.hpp", "#include <kvevict/cuda/a.hpp>") == 1);
  CHECK(count("engines/a.hpp", "#include <kvevict/cuda/b.hpp>") == 1);
  CHECK(count("presets/a.hpp", "#include <kvevict/cuda/b.hpp>") == 1);
  CHECK(count("cuda/a.hpp", "#include <kvevict/presets/b.hpp>") == 1);
  CHECK(count("kernels/a.hpp", "f<<<1, 2>>>();") == 1);
  CHECK(count("kernels/a.hpp", "asm volatile(\"\");") == 1);
  CHECK(count("core/a.hpp", "__asm__(\"\");") == 1);
  CHECK(count("core/a.hpp", std::string(200, '\n')) == 1);
  CHECK(violations({"core/a.hpp", "#pragma once\n"}).size() == 1);
}
