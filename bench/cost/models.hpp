// SPDX-License-Identifier: Apache-2.0
// Shapes of public model configurations.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace cost {

struct model {
  char const* name;
  std::int32_t layers, q_heads, kv_heads, head_dim;
  double active;              // parameters that a decode step reads
  std::int32_t latent_v = 0;  // MLA: the row is a latent vector with the key's rotary part, and V its first elements
};

inline constexpr model models[] = {
    {"smollm2-135m", 30, 9, 3, 64, 134.5e6},     {"qwen2.5-7b", 28, 28, 4, 128, 7.62e9},
    {"llama-3.1-8b", 32, 32, 8, 128, 8.03e9},    {"qwen3-8b", 36, 32, 8, 128, 8.19e9},
    {"mistral-7b", 32, 32, 8, 128, 7.25e9},      {"llama-3.3-70b", 80, 64, 8, 128, 70.6e9},
    {"deepseek-v3", 61, 128, 1, 576, 37e9, 512},
};

inline model const& model_named(std::string const& name) {
  std::string known;
  for (model const& m : models) {
    if (m.name == name) return m;
    known += std::string(" ") + m.name;
  }
  throw std::runtime_error("--model " + name + ": not in the table; give --layers, --hq, --h and --d, or one of" +
                           known);
}

}  // namespace cost
