// SPDX-License-Identifier: Apache-2.0
// The folders of include/kvevict are layers: a header includes its own folder and those to its left.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace layers_test {

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
                                                {"measure", 9},
                                                {"kvevict.hpp", umbrella},
                                                {"threads.hpp", umbrella}};
  auto const found = ranks.find(layer);
  return found == ranks.end() ? -1 : found->second;
}

std::string layer_of(std::string const& path) { return path.substr(0, path.find('/')); }

/// cuda/ has rooms of its own, in an order, too: shim → context → evidence → scores → {attention, gate, select} →
/// apply.
/// -1: not a room.
int rank_of_room(std::string const& room) {
  static std::map<std::string, int> const ranks{{"shim", 0},      {"context", 1}, {"evidence", 2}, {"scores", 3},
                                                {"attention", 4}, {"gate", 4},    {"select", 4},   {"apply", 5}};
  auto const found = ranks.find(room);
  return found == ranks.end() ? -1 : found->second;
}

/// The room of cuda/room/file.hpp; nothing for a file of no room.
std::string room_of(std::string const& path) {
  std::size_t const from = path.find('/') + 1, to = path.find('/', from);
  return to == std::string::npos ? "" : path.substr(from, to - from);
}

bool room_may_include(std::string const& from, std::string const& to) {
  return rank_of_room(to) != -1 && (from == to || rank_of_room(to) < rank_of_room(from));
}

bool may_include(std::string const& from, std::string const& to) {
  if (to == "cuda") return from == "cuda";  // opt-in: nothing includes it
  int const a = rank_of(from), b = rank_of(to);
  return b != -1 && b != umbrella && (from == to || b < a);
}

/// What core/ may include besides the library: standard headers, and the compiler's own intrinsics.
bool is_standard(std::string const& header) {
  static std::regex const standard("[a-z_0-9]+");
  return std::regex_match(header, standard) || header == "immintrin.h" || header == "emmintrin.h" ||
         header == "arm_neon.h";
}

std::string check_include(std::string const& path, std::string const& header, bool quoted) {
  std::string const layer = layer_of(path);
  if (header.rfind("kvevict/", 0) == 0) {
    std::string const target = layer_of(header.substr(8));
    if (!may_include(layer, target)) return "includes " + header + ", which is not to the left of " + layer;
    if (target == "cuda" && !room_may_include(room_of(path), room_of(header.substr(8))))
      return "includes " + header + ", which is not to the left of cuda/" + room_of(path);
    return "";
  }
  if (quoted) return "includes \"" + header + "\"; write <kvevict/...>";
  if (layer != "threads.hpp" && (header.rfind("Eigen/", 0) == 0 || header.rfind("unsupported/Eigen/", 0) == 0))
    return "includes Eigen; only threads.hpp, which nothing includes, may";
  if (layer == "core" && !is_standard(header))
    return "core/ includes " + header + ", which is not the standard library";
  return "";
}

/// Device kernels (structs named …_kernel that run on a thread) whose comment has no line of Shapes.
std::vector<std::string> kernels_without_shapes(std::string const& text) {
  std::vector<std::string> found;
  std::string comment;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    static std::regex const kernel(".*struct (\\w+_kernel) \\{.*");
    std::smatch name;
    if (line.rfind("///", 0) == 0)
      comment += line + '\n';
    else if (std::regex_match(line, name, kernel) && comment.find("/// Shapes ") == std::string::npos)
      found.push_back(name[1]);
    else if (line.rfind("template", 0) != 0)
      comment.clear();
  }
  return found;
}

/// Names of structs, classes and functions that a room defines twice: they would hide what is where.
std::vector<std::string> doubles(std::vector<source> const& files) {
  std::map<std::string, std::set<std::string>> files_of;  // room and name
  static std::regex const type(
      "(?:^|\n)(?:template <[^\n]*>\\s)?(?:struct|class|enum class) ((?:\\w+::)?\\w+)[^;\n(]*\\{");
  for (source const& file : files)
    if (layer_of(file.path) == "cuda")
      for (std::sregex_iterator i(file.text.begin(), file.text.end(), type), end; i != end; ++i)
        files_of[room_of(file.path) + ": " + (*i)[1].str()].insert(file.path);
  std::vector<std::string> found;
  for (auto const& [name, where] : files_of)
    if (where.size() > 1) found.push_back(name + " is in " + *where.begin() + " and " + *where.rbegin());
  return found;
}

std::vector<std::string> violations(source const& file) {
  std::vector<std::string> found;
  auto const report = [&](std::string const& what) {
    if (!what.empty()) found.push_back(file.path + ": " + what);
  };
  std::string const layer = layer_of(file.path);
  if (rank_of(layer) == -1) report("is in no layer of the library");
  if (layer == "cuda" && rank_of_room(room_of(file.path)) == -1) report("is in no room of cuda/");
  for (std::string const& kernel : kernels_without_shapes(file.text)) report(kernel + " does not say its Shapes");
  if (file.text.rfind("// SPDX-License-Identifier: Apache-2.0\n", 0) != 0)
    report("does not begin with the licence line");
  static std::regex const comment("\\n[ \t]*//[^\n]*");
  std::string const code = std::regex_replace(file.text, comment, "");
  if (std::count(code.begin(), code.end(), '\n') > 200) report("has more than 200 lines besides comments");
  // asm("" : … ) has no instruction: it only keeps the compiler from reordering
  static std::regex const device("<<<|\\b(?:__)?asm(?:__)?\\b(?!\\(\"\" : )|\\bcudaLaunch");
  if (layer != "cuda" && std::regex_search(file.text, device))
    report("launches kernels or contains assembly; only cuda/ may");
  static std::regex const include("(?:^|\n)[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]");
  for (std::sregex_iterator i(file.text.begin(), file.text.end(), include), end; i != end; ++i)
    report(check_include(file.path, (*i)[2], (*i)[1] == "\""));
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
  for (auto const& what : doubles(files)) FAIL_CHECK(what);
}

TEST_CASE("the layer check lets right includes pass") {
  CHECK(count("kernels/a.hpp", "#include <kvevict/kernels/b.hpp>\n#include <kvevict/core/c.hpp>") == 0);
  CHECK(count("threads.hpp", "#include <unsupported/Eigen/CXX11/ThreadPool>\n#include <kvevict/core/a.hpp>") == 0);
  CHECK(count("core/a.hpp", "#include <cstdint>\n#  include <immintrin.h>\n#include <kvevict/core/b.hpp>") == 0);
  CHECK(count("score/a.hpp", "#include <kvevict/score/b.hpp>\n#include <kvevict/evidence/c.hpp>") == 0);
  CHECK(count("policy.hpp", "#include <kvevict/state/a.hpp>\n#include <kvevict/heads/b.hpp>") == 0);
  CHECK(count("cuda/gate/a.hpp",
              "#include <kvevict/cuda/scores/b.hpp>\n#include <kvevict/apply/c.hpp>\n#include <kvevict/policy.hpp>") ==
        0);
  CHECK(count("cuda/shim/a.hpp", "asm(\"\"); f<<<1, 2>>>();") == 0);
  CHECK(count("kernels/a.hpp", "asm(\"\" : \"+m\"(x));") == 0);
  CHECK(count("cuda/apply/a.hpp", "#include <kvevict/cuda/apply/b.hpp>\n#include <kvevict/cuda/select/c.hpp>") == 0);
  CHECK(count("cuda/gate/a.hpp", "/// Shapes   p (T,H).\ntemplate <class T> struct a_kernel {\n};") == 0);
  CHECK(count("cuda/gate/a.hpp", "struct a_kernel {\n};") == 1);
  CHECK(count("cuda/gate/a.hpp", "/// Shapes   p (T,H).\nint x;\nstruct a_kernel {\n};") == 1);
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
  CHECK(count("cuda/gate/a.hpp", "#include <kvevict/presets/b.hpp>") == 1);
  CHECK(count("cuda/a.hpp", "") == 1);
  CHECK(count("cuda/utils/a.hpp", "") == 1);
  CHECK(count("cuda/shim/a.hpp", "#include <kvevict/cuda/context/b.hpp>") == 1);
  CHECK(count("cuda/scores/a.hpp", "#include <kvevict/cuda/apply/b.hpp>") == 1);
  CHECK(count("cuda/gate/a.hpp", "#include <kvevict/cuda/attention/b.hpp>") == 1);
  CHECK(count("cuda/gate/a.hpp", "#include <kvevict/cuda/b.hpp>") == 1);
  CHECK(doubles({{"cuda/gate/a.hpp", "struct x {"}, {"cuda/gate/b.hpp", "\nstruct x {"}}).size() == 1);
  CHECK(doubles({{"cuda/gate/a.hpp", "struct x {"}, {"cuda/select/b.hpp", "struct x {"}}).empty());
  CHECK(count("kernels/a.hpp", "f<<<1, 2>>>();") == 1);
  CHECK(count("kernels/a.hpp", "asm volatile(\"\");") == 1);
  CHECK(count("core/a.hpp", "__asm__(\"\");") == 1);
  CHECK(count("core/a.hpp", std::string(200, '\n')) == 1);
  CHECK(violations({"core/a.hpp", "#pragma once\n"}).size() == 1);
}

}  // namespace layers_test
