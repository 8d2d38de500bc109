// SPDX-License-Identifier: Apache-2.0
// Compares the engine with the numbers of an independent implementation, and with itself.
//   engine_check MODEL_DIR reference.json
#include <cstdio>
#include "engine.hpp"

using namespace llama;
using ids = std::vector<int>;

namespace {

bool all_good = true;
void report(std::string const& what, double value, double limit) {
  all_good = all_good && value <= limit;
  std::printf("%-4s %-52s %.3g (limit %.3g)\n", value <= limit ? "ok" : "FAIL", what.c_str(), value, limit);
}

Eigen::VectorXf last_row(logits const& l) { return l.row(l.rows() - 1); }
double distance(Eigen::VectorXf const& a, Eigen::VectorXf const& b) {
  return (a - b).cwiseAbs().maxCoeff() / b.cwiseAbs().maxCoeff();
}

double perplexity(engine& e, sequence seq, ids const& text) {
  auto const l = e.prefill(seq, text, int(text.size()));  // (N,vocab)
  double nats = 0;
  for (int t = 0; t + 1 < int(text.size()); ++t) {
    float const peak = l.row(t).maxCoeff();
    nats += peak + std::log((l.row(t).array() - peak).exp().cast<double>().sum()) - l(t, text[t + 1]);
  }
  return std::exp(nats / double(text.size() - 1));
}

ids greedy(engine& e, sequence& seq, int token, int count) {
  ids out{token};
  sequence* const one = &seq;
  while (int(out.size()) < count) out.push_back(argmax(e.decode({&one, 1}, {&out.back(), 1}), 0));
  return out;
}

void against_reference(engine& e, json const& reference) {
  kv_pool pool(4096 / 16 * e.cfg().layers * e.cfg().kv_heads, 16, e.cfg().head_dim);
  for (int const stride = reference.at("logit_stride"); auto const& [name, prompt] : reference.at("prompts").items()) {
    auto const expected = prompt.at("logits").get<std::vector<float>>();
    auto seq = e.start(pool);
    auto const l = e.prefill(seq, prompt.at("ids").get<ids>());
    double worst = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      worst = std::max(worst, double(std::abs(l(0, Eigen::Index(i) * stride) - expected[i])));
    report(name + ": logits against transformers, relative", worst / prompt.at("max_abs_logit").get<double>(), 1e-3);
    auto const wanted = prompt.at("greedy").get<ids>(), found = greedy(e, seq, argmax(l, 0), int(wanted.size()));
    int differ = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) differ += found[i] != wanted[i];
    report(name + ": greedy tokens that differ, of 64", differ, 0);
  }
  double const found = perplexity(e, e.start(pool), reference.at("perplexity").at("ids").get<ids>());
  std::printf("     perplexity %.3f, transformers %.3f\n", found, reference.at("perplexity").at("value").get<double>());
  report("perplexity: distance from 19.28", std::abs(found - 19.28), 0.05);
  report("pages still in use", pool.used_pages(), 0);
}

void step_alone(engine& e, sequence& seq, int length, int token, Eigen::MatrixXf const& together, int b) {
  for (int l = 0; l < seq.layers(); ++l)
    for (int h = 0; h < seq.kv_heads(); ++h) seq.truncate(l, h, length);
  seq.next_position = length;
  sequence* const one = &seq;
  report("  a batch of 3 against one, sequence " + std::to_string(b),
         distance(last_row(e.decode({&one, 1}, {&token, 1})), together.col(b)), 1e-4);
}

void against_itself(engine& e, ids const& text) {
  Eigen::VectorXf whole;
  int const N = int(text.size());
  for (int P : {1, 16, 64, 256}) {
    kv_pool pool(6 * 2048 / P * e.cfg().layers * e.cfg().kv_heads, P, e.cfg().head_dim);
    auto seq = e.start(pool), pieces = e.start(pool), shorter = e.start(pool);
    auto const found = last_row(e.prefill(seq, text));
    if (P == 1) whole = found;
    report("page size " + std::to_string(P) + ": logits against page size 1", distance(found, whole), 0);
    for (int at = 0, n = 1; at < N; at += n, n = n * 2 + 1) {
      auto const l = e.prefill(pieces, std::span(text).subspan(at, std::min(n, N - at)));
      if (at + n >= N) report("  prefill in chunks against one", distance(last_row(l), whole), 1e-4);
    }
    e.prefill(shorter, std::span(text).first(100));
    auto fork = seq.fork();
    sequence* const batch[] = {&seq, &shorter, &fork};
    Eigen::MatrixXf const together = e.decode(batch, std::span(text).first(3)).transpose();  // column b: (vocab)
    for (int b = 0; b < 3; ++b) step_alone(e, *batch[b], b == 1 ? 100 : N, text[b], together, b);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: engine_check MODEL_DIR reference.json");
  model const m(argv[1]);
  json const reference = read_json(argv[2]);
  engine e(m);
  against_reference(e, reference);
  against_itself(e, reference.at("prompts").at("long").at("ids").get<ids>());
  return all_good ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "engine_check: %s\n", error.what());
  return 2;
}
