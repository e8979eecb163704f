// What the state's type and the replay length cost in accuracy: every token of a text is fed alone,
// as a decode, and logits are compared with those of a float32 state that is written at every
// token.
//
//   state_drift_bench model=models/hgrn2-gutenberg-12m tokens=tests/data/eval/valid_ids.npy
//       dtype=float32 length=2000 texts=8 every=1 states=float32:16,float16:1,float16:16,fp8:16
//
// length: tokens of a text; every: compare at every n-th position. tokens: an .npy file of uint16
// ids, taken one after the other. Configurations (state:N) of different types run side by side.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/string_view.h"
#include "engine/backend/backend.h"
#include "engine/loader/weights.h"

namespace hgrn2::bench {
namespace {

using Options = std::map<std::string, std::string>;
using Texts = std::vector<std::vector<int32_t>>;

void Check(const absl::Status& status) { HGRN2_CHECK(status.ok(), ToStd(status.message())); }

DType ParseDType(const std::string& name) {
  for (const DType t : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3}) {
    if (name == Name(t)) return t;
  }
  HGRN2_CHECK(false, "types: float32, float16, bfloat16, fp8");
}

Texts ReadTexts(const std::string& path, size_t length, size_t count) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  HGRN2_CHECK(bytes.size() > 10 && bytes.compare(1, 5, "NUMPY") == 0, "not an .npy file");
  const size_t header = 10 + static_cast<uint8_t>(bytes[8]) + 256u * static_cast<uint8_t>(bytes[9]);
  HGRN2_CHECK(bytes.find("<u2") < header, "the token ids must be uint16");
  const size_t available = (bytes.size() - header) / 2;
  Texts texts(count, std::vector<int32_t>(length));
  for (size_t i = 0; i < count * length; ++i) {
    uint16_t id;
    std::memcpy(&id, bytes.data() + header + i % available * 2, 2);
    texts[i / length][i % length] = id;
  }
  return texts;
}

struct StateConfig {
  std::string name;
  DType dtype = DType::kF32;
  int32_t replay = 1;
};

// "float16:16,fp8:32"
std::vector<StateConfig> ParseStates(const std::string& text) {
  std::vector<StateConfig> configs = {{"float32:1", DType::kF32, 1}};  // the reference
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    const size_t colon = name.find(':');
    HGRN2_CHECK(colon != std::string::npos, "states: type:N, float16:16,fp8:32");
    configs.push_back({name, ParseDType(name.substr(0, colon)), std::stoi(name.substr(colon + 1))});
    begin = end + 1;
  }
  return configs;
}

StepBatch FeedOne(const Texts& texts, size_t t) {
  StepBatch batch;
  for (size_t i = 0; i < texts.size(); ++i) {
    StepSequence s;
    s.slot = s.token_begin = static_cast<int32_t>(i);
    s.reset_state = t == 0;
    s.sample = true;  // as a decode does; the sampled token is not used
    batch.tokens.push_back(texts[i][t]);
    batch.sequences.push_back(s);
  }
  return batch;
}

// Logits after every `every`-th token of every text.
std::vector<float> Run(const ModelWeights& weights, DType dtype, const StateConfig& config,
                       const Texts& texts, size_t every) {
  BackendOptions options;
  options.dtype = dtype;
  options.state_dtype = config.dtype;
  options.state_replay = config.replay;
  options.num_slots = static_cast<int32_t>(texts.size());
  options.max_batched_tokens = 256;
  options.memory_utilization = 0.95;
  auto backend = MakeCudaBackend(weights, options);
  Check(backend.status());
  SlotSampling greedy;
  greedy.scalars.temperature = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    Check((*backend)->ConfigureSlot(static_cast<int32_t>(i), greedy));
  }
  std::vector<float> out;
  StepResult result;
  int pending = 0;
  const auto collect = [&](int most) {
    for (; pending > most; --pending) Check((*backend)->Collect(&result));
  };
  for (size_t t = 0; t < texts[0].size(); ++t) {
    const StepBatch batch = FeedOne(texts, t);
    if ((t + 1) % every != 0) {
      collect(1);
      Check((*backend)->Enqueue(batch));
      ++pending;
      continue;
    }
    collect(0);
    const auto logits = (*backend)->ForwardLogits(batch);
    Check(logits.status());
    out.insert(out.end(), logits->begin(), logits->end());
  }
  collect(0);
  return out;
}

// Mean negative log-likelihood of the texts' next tokens at the measured positions.
double Loss(const std::vector<float>& logits, const Texts& texts, size_t every, size_t vocab) {
  double sum = 0;
  int64_t count = 0;
  const float* row = logits.data();
  for (size_t t = every - 1; t < texts[0].size(); t += every) {
    for (const std::vector<int32_t>& text : texts) {
      if (t + 1 < text.size()) {
        const float most = *std::max_element(row, row + vocab);
        double total = 0;
        for (size_t v = 0; v < vocab; ++v) total += std::exp(static_cast<double>(row[v]) - most);
        sum += std::log(total) + most - row[text[t + 1]];
        ++count;
      }
      row += vocab;
    }
  }
  return sum / static_cast<double>(count);
}

struct Difference {
  double relative;  // norm over all positions
  double worst;     // of one position
};

Difference Compare(const std::vector<float>& a, const std::vector<float>& b, size_t vocab) {
  double error = 0, norm = 0, worst = 0;
  for (size_t begin = 0; begin < a.size(); begin += vocab) {
    double row_error = 0, row_norm = 0;
    for (size_t v = begin; v < begin + vocab; ++v) {
      const double difference = static_cast<double>(a[v]) - b[v];
      row_error += difference * difference;
      row_norm += static_cast<double>(b[v]) * b[v];
    }
    worst = std::max(worst, std::sqrt(row_error / row_norm));
    error += row_error;
    norm += row_norm;
  }
  return {std::sqrt(error / norm), worst};
}

int Main(Options o) {
  const auto weights = LoadModelWeights(o["model"], LoadFormat::kAuto, 0);
  Check(weights.status());
  const DType dtype = ParseDType(o["dtype"]);
  const size_t every = std::stoul(o["every"]), vocab = weights->config.vocab_size;
  const Texts texts = ReadTexts(o["tokens"], std::stoul(o["length"]), std::stoul(o["texts"]));
  const std::vector<StateConfig> configs = ParseStates(o["states"]);
  std::vector<std::vector<float>> logits(configs.size());
  std::vector<std::thread> threads;
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3}) {
    threads.emplace_back([&, type] {
      for (size_t i = 0; i < configs.size(); ++i) {
        if (configs[i].dtype == type) logits[i] = Run(*weights, dtype, configs[i], texts, every);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double reference = Loss(logits[0], texts, every, vocab);
  std::printf("%s products, %zu texts of %s tokens, %zu positions; float32 state: loss %.7f\n",
              o["dtype"].c_str(), texts.size(), o["length"].c_str(), logits[0].size() / vocab,
              reference);
  for (size_t i = 1; i < configs.size(); ++i) {
    const Difference d = Compare(logits[i], logits[0], vocab);
    const double loss = Loss(logits[i], texts, every, vocab);
    std::printf("state %-12s logits %.2e (worst position %.2e)  loss %.7f (%+.5f %%)\n",
                configs[i].name.c_str(), d.relative, d.worst, loss,
                100 * (loss - reference) / reference);
  }
  return 0;
}

}  // namespace
}  // namespace hgrn2::bench

int main(int argc, char** argv) {
  hgrn2::bench::Options options = {{"model", "models/hgrn2-gutenberg-12m"},
                                   {"tokens", "tests/data/eval/valid_ids.npy"},
                                   {"dtype", "float32"},
                                   {"length", "2000"},
                                   {"texts", "8"},
                                   {"every", "1"},
                                   {"states",
                                    "float32:16,float16:1,float16:8,float16:16,"
                                    "float16:32,bfloat16:1,bfloat16:8,bfloat16:16,"
                                    "bfloat16:32,fp8:1,fp8:8,fp8:16,fp8:32"}};
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals == std::string::npos || !options.count(argument.substr(0, equals))) {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
    options[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  return hgrn2::bench::Main(options);
}
