// Speed of the CPU backend on the embedded model: decode by batch, prefill, sampling, fork-join, and
// the memory bandwidth that bounds decode at batch 1, all in one run.
//
//   cpu_bench [threads] [rounds]
//
// Everything is measured in turn in each round and the median over rounds is printed, so that load
// from outside hits all rows alike and ratios stay comparable.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/string_view.h"
#include "engine/backend/backend.h"
#include "engine/loader/weights.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/cpu_info.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/thread_pool.h"

namespace hgrn2 {
namespace {

using cpu::ThreadPool;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One measured quantity: `run` does the work `repeat` times and returns seconds per repetition.
struct Measurement {
  std::string name;
  std::function<double()> run;
  std::vector<double> seconds;

  double Median() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  double Best() const { return *std::min_element(seconds.begin(), seconds.end()); }
};

std::function<double()> Repeat(int repeat, std::function<void()> once) {
  return [=] {
    const double start = Now();
    for (int i = 0; i < repeat; ++i) once();
    return (Now() - start) / repeat;
  };
}

// Reads `bytes` once on all threads: what streaming the weights costs and nothing else.
class Reader {
 public:
  Reader(int64_t bytes, ThreadPool* pool) : data_(static_cast<size_t>(bytes) / 8), pool_(pool) {
    for (size_t i = 0; i < data_.size(); ++i) data_[i] = i;
  }
  void Read() {
    constexpr size_t kBlock = 8192;  // 64 KiB
    pool_->ForEach(static_cast<int>(data_.size() / kBlock), [&](int block) {
      const uint64_t* at = data_.data() + static_cast<size_t>(block) * kBlock;
      uint64_t sums[32] = {};  // enough for the compiler to use whole vectors
      for (size_t i = 0; i < kBlock; i += 32) {
        for (int j = 0; j < 32; ++j) sums[j] += at[i + static_cast<size_t>(j)];
      }
      uint64_t sum = 0;
      for (const uint64_t s : sums) sum += s;
      asm volatile("" ::"r"(sum));
    });
  }

 private:
  cpu::AlignedBuffer<uint64_t> data_;
  ThreadPool* pool_;
};

struct Fixture {
  std::string name;
  std::unique_ptr<Backend> backend;
  int vocab;

  Fixture(std::string label, const ModelWeights& weights, DType dtype, DType state, int threads)
      : name(std::move(label)), vocab(weights.config.vocab_size) {
    BackendOptions options;
    options.dtype = dtype;
    options.state_dtype = state;
    options.num_slots = 32;
    options.num_threads = threads;
    auto made = MakeCpuBackend(weights, options);
    HGRN2_CHECK(made.ok(), ToStd(made.status().message()));
    backend = *std::move(made);
    for (int slot = 0; slot < 32; ++slot) {
      SlotSampling sampling;
      sampling.scalars.temperature = 0.8f;
      sampling.scalars.top_p = 0.95f;
      sampling.scalars.seed = static_cast<uint64_t>(slot);
      HGRN2_CHECK(backend->ConfigureSlot(slot, sampling).ok());
    }
    Step(32, 64, true);
  }

  // One step of `sequences` sequences with `tokens` tokens each, sampled.
  void Step(int sequences, int tokens, bool reset) {
    StepBatch batch;
    for (int slot = 0; slot < sequences && tokens * slot < 256; ++slot) {
      StepSequence& s = batch.sequences.emplace_back();
      s.slot = slot;
      s.token_begin = static_cast<int32_t>(batch.tokens.size());
      s.num_tokens = tokens;
      s.reset_state = reset;
      s.sample = true;
      s.token_on_device = tokens == 1;
      for (int t = 0; t < tokens; ++t) batch.tokens.push_back((slot * 977 + t * 31) % vocab);
    }
    StepResult result;
    HGRN2_CHECK(backend->Enqueue(batch).ok() && backend->Collect(&result).ok());
  }
};

std::function<double()> SampleRows(int vocab, float top_p) {
  auto logits = std::make_shared<cpu::AlignedBuffer<float>>(static_cast<size_t>(vocab));
  auto scratch = std::make_shared<cpu::SamplerScratch>(vocab);
  // Spread like a language model's: a few likely tokens and a long tail.
  for (int i = 0; i < vocab; ++i) {
    (*logits)[i] = 12.0f * static_cast<float>(i * 2654435761u >> 8 & 0xFFFF) / 65536.0f;
  }
  cpu::SampleParams p;
  p.vocab = vocab;
  p.scalars.temperature = 0.8f;
  p.scalars.top_p = top_p;
  return Repeat(50, [=]() mutable {
    p.logits = logits->data();
    p.scratch = scratch.get();
    ++p.position;
    asm volatile("" ::"r"(cpu::SampleToken(p)));
  });
}

void PrintModel(const Fixture& f, const std::vector<Measurement*>& m, double read) {
  const double batch1 = m[0]->Median();
  std::printf("\n%s (%s state)\n", f.name.c_str(), Name(f.backend->info().state_dtype));
  for (const Measurement* x : m) {
    const bool prefill = x->name.find("prefill") != std::string::npos;
    const int tokens = std::atoi(x->name.c_str() + x->name.find_last_of(' '));
    std::printf("  %-14s %9.3f ms (best %.3f) %10.0f tok/s  %5.2f x batch 1\n", x->name.c_str(),
                x->Median() * 1e3, x->Best() * 1e3, tokens / x->Median(),
                tokens / x->Median() * batch1);
    (void)prefill;
  }
  std::printf("  weights read once: %.3f ms; decode 1 is at %.0f %% of it\n", read * 1e3,
              100 * read / batch1);
}

int Main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : cpu::NumUsableCpus();
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 15;
  auto weights = LoadModelWeights(HGRN2_SOURCE_DIR "/models/hgrn2-gutenberg-12m", LoadFormat::kAuto, 0);
  HGRN2_CHECK(weights.ok(), ToStd(weights.status().message()));
  std::vector<std::unique_ptr<Fixture>> fixtures;
  fixtures.push_back(std::make_unique<Fixture>("bf16", *weights, DType::kBF16, DType::kF16, threads));
  fixtures.push_back(std::make_unique<Fixture>("bf16", *weights, DType::kBF16, DType::kF32, threads));
  fixtures.push_back(std::make_unique<Fixture>("fp32", *weights, DType::kF32, DType::kF32, threads));
  ThreadPool pool(threads);
  const int64_t embedding_bytes = weights->embeddings.size() * 2;  // a step reads one row of them
  std::vector<std::unique_ptr<Measurement>> all;
  const auto add = [&](std::string name, std::function<double()> run) {
    all.push_back(std::make_unique<Measurement>(Measurement{std::move(name), std::move(run), {}}));
    return all.back().get();
  };
  std::vector<std::vector<Measurement*>> by_fixture;
  std::vector<Measurement*> reads;
  for (auto& f : fixtures) {
    Fixture* const x = f.get();
    auto reader =
        std::make_shared<Reader>(x->backend->info().weight_bytes - embedding_bytes, &pool);
    reads.push_back(add("read", Repeat(20, [reader] { reader->Read(); })));
    std::vector<Measurement*> m;
    for (const int batch : {1, 2, 4, 8, 16, 32}) {
      m.push_back(add("decode " + std::to_string(batch),
                      Repeat(std::max(2, 20 / batch), [=] { x->Step(batch, 1, false); })));
    }
    m.push_back(add("prefill 256", Repeat(1, [=] { x->Step(1, 256, true); })));
    m.push_back(add("prefill 4x64 256", Repeat(1, [=] { x->Step(4, 64, true); })));
    by_fixture.push_back(m);
  }
  Measurement* const fork = add("fork-join", Repeat(2000, [&] { pool.ForEach(threads, [](int) {}); }));
  Measurement* const sample = add("sample", SampleRows(4096, 0.95f));
  Measurement* const sample_all = add("sample", SampleRows(4096, 1.0f));
  for (int round = 0; round < rounds; ++round) {
    for (auto& m : all) {
      m->run();  // brings its data into the caches
      m->seconds.push_back(m->run());
    }
  }
  std::printf("%s, %d rounds, medians\n", fixtures[0]->backend->info().device.c_str(), rounds);
  for (size_t i = 0; i < fixtures.size(); ++i) {
    PrintModel(*fixtures[i], by_fixture[i], reads[i]->Median());
    std::printf("  read bandwidth: %.1f GB/s\n",
                static_cast<double>(fixtures[i]->backend->info().weight_bytes - embedding_bytes) /
                    reads[i]->Median() / 1e9);
  }
  std::printf("\nfork-join: %.2f us (best %.2f)\n", fork->Median() * 1e6, fork->Best() * 1e6);
  std::printf("sample, V = 4096, temperature 0.8: top_p 0.95 %.2f us (best %.2f), 1 %.2f us\n",
              sample->Median() * 1e6, sample->Best() * 1e6, sample_all->Median() * 1e6);
  return 0;
}

}  // namespace
}  // namespace hgrn2

int main(int argc, char** argv) { return hgrn2::Main(argc, argv); }
