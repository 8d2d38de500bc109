// Compares the engine with the numbers of an independent implementation, and with itself.
//   engine_check MODEL_DIR reference.json
#include <cstdio>
#include <functional>

#include "engine.hpp"

using namespace llama;
using ids = std::vector<int>;

namespace {

bool all_good = true;

void report(std::string const& what, double value, double limit) {
  bool const good = value <= limit;
  all_good = all_good && good;
  std::printf("%-4s %-52s %.3g (limit %.3g)\n", good ? "ok" : "FAIL", what.c_str(), value, limit);
}

Eigen::VectorXf last_row(logits const& l) { return l.row(l.rows() - 1); }
double distance(Eigen::VectorXf const& a, Eigen::VectorXf const& b) { return (a - b).cwiseAbs().maxCoeff() / b.cwiseAbs().maxCoeff(); }

double perplexity(engine& e, sequence seq, ids const& text) {
  auto const l = e.prefill(seq, text, int(text.size()));  // (N,vocab)
  double nats = 0;
  for (int t = 0; t + 1 < int(text.size()); ++t) {
    float const peak = l.row(t).maxCoeff();
    nats += peak + std::log((l.row(t).array() - peak).exp().cast<double>().sum()) - l(t, text[std::size_t(t) + 1]);
  }
  return std::exp(nats / double(text.size() - 1));
}

ids greedy(engine& e, sequence& seq, int token, int count) {
  ids out{token};
  sequence* const one = &seq;
  while (int(out.size()) < count) out.push_back(argmax(e.decode({&one, 1}, {&out.back(), 1}), 0));
  return out;
}

void against_reference(engine& e, kv_pool& pool, json const& reference) {
  int const stride = reference.at("logit_stride");
  for (auto const& [name, prompt] : reference.at("prompts").items()) {
    auto const tokens = prompt.at("ids").get<ids>();
    auto const expected = prompt.at("logits").get<std::vector<float>>();
    auto seq = e.start(pool);
    auto const l = e.prefill(seq, tokens);
    double worst = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, double(std::abs(l(0, Eigen::Index(i) * stride) - expected[i])));
    report(name + ": logits against transformers, relative", worst / prompt.at("max_abs_logit").get<double>(), 1e-3);
    auto const wanted = prompt.at("greedy").get<ids>();
    auto const found = greedy(e, seq, argmax(l, 0), int(wanted.size()));
    report(name + ": greedy tokens that differ, of 64", double(std::inner_product(found.begin(), found.end(), wanted.begin(), 0, std::plus<>(), std::not_equal_to<>())), 0);
  }
  auto const& text = reference.at("perplexity");
  double const found = perplexity(e, e.start(pool), text.at("ids").get<ids>());
  std::printf("     perplexity %.3f, transformers %.3f\n", found, text.at("value").get<double>());
  report("perplexity: distance from 19.28", std::abs(found - 19.28), 0.05);
}

void against_itself(engine& e, ids const& text) {
  Eigen::VectorXf whole;
  for (int P : {1, 16, 64, 256}) {
    kv_pool pool(6 * 2048 / P * e.cfg().layers * e.cfg().kv_heads, P, e.cfg().head_dim);
    auto seq = e.start(pool), pieces = e.start(pool), twin = e.start(pool);
    auto const found = last_row(e.prefill(seq, text));
    if (P == 1) whole = found;
    report("page size " + std::to_string(P) + ": logits against page size 1", distance(found, whole), 0);
    for (std::size_t at = 0, n = 1; at < text.size(); at += n, n = n * 2 + 1) {
      auto const l = e.prefill(pieces, std::span(text).subspan(at, std::min(n, text.size() - at)));
      if (at + n >= text.size()) report("page size " + std::to_string(P) + ": prefill in chunks against one", distance(last_row(l), whole), 1e-4);
    }
    e.prefill(twin, std::span(text).first(100));
    auto fork = seq.fork();
    sequence* const batch[] = {&seq, &twin, &fork};
    int const next[] = {text[0], text[1], text[2]};
    Eigen::MatrixXf const together = e.decode(batch, next).transpose();  // column b: (vocab)
    auto alone = e.start(pool);
    e.prefill(alone, std::span(text).first(100));
    for (int b = 0; b < 3; ++b) {
      sequence* one = b == 1 ? &alone : batch[b];
      if (b != 1) for (int l = 0; l < e.cfg().layers; ++l) for (int h = 0; h < e.cfg().kv_heads; ++h) one->truncate(l, h, int(text.size()));
      if (b != 1) one->next_position = int(text.size());
      report("page size " + std::to_string(P) + ": a batch of 3 against one, sequence " + std::to_string(b), distance(last_row(e.decode({&one, 1}, {&next[b], 1})), together.col(b)), 1e-4);
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: engine_check MODEL_DIR reference.json");
  model const m(argv[1]);
  json const reference = json::parse(std::ifstream(argv[2]));
  engine e(m);
  kv_pool pool(4096 / 16 * m.cfg.layers * m.cfg.kv_heads, 16, m.cfg.head_dim);
  against_reference(e, pool, reference);
  report("pages still in use", pool.used_pages(), 0);
  against_itself(e, reference.at("prompts").at("long").at("ids").get<ids>());
  return all_good ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "engine_check: %s\n", error.what());
  return 2;
}
