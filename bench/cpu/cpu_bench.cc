// Speed of the CPU backend: decode by batch, prefill, sampling and fork-join, beside what bounds
// them: the bandwidth at which the same bytes are read and the rate of products from the L1 cache.
//
//   cpu_bench [threads] [rounds] [embedded|large]
//
// embedded: the model in models/. large: 152 M random parameters, whose weights are larger than any
// cache. Everything is measured in turn in each round and the median over rounds is printed, so
// that load from outside hits all rows alike and ratios stay comparable.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/host.h"
#include "base/string_view.h"
#include "engine/backend/backend.h"
#include "engine/loader/weights.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/gemm.h"
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

// Products of a register block whose operands stay in the L1 cache, on all threads: the most that
// the machine multiplies.
class Peak {
 public:
  Peak(DType dtype, ThreadPool* pool)
      : weights_(cpu::kPanelColumns, kDepth, dtype),
        a_(static_cast<size_t>(cpu::kTileRows * kDepth) * 4),
        c_(static_cast<size_t>(cpu::kTileRows * cpu::kPanelColumns * pool->num_threads())),
        pool_(pool) {}
  static constexpr int kRepeat = 2000;
  double products() const {
    return double{kRepeat} * cpu::kTileRows * cpu::kPanelColumns * kDepth * pool_->num_threads();
  }
  void Run() {
    pool_->ForEach(pool_->num_threads(), [&](int item) {
      cpu::GemmParams p;
      p.weights = &weights_;
      p.a = a_.data();
      p.lda = kDepth;
      p.rows = cpu::kTileRows;
      p.c = c_.data() + item * cpu::kTileRows * cpu::kPanelColumns;
      p.ldc = cpu::kPanelColumns;
      for (int i = 0; i < kRepeat; ++i) cpu::Gemm(p);
    });
  }

 private:
  static constexpr int kDepth = 128;
  cpu::PackedMatrix weights_;
  cpu::AlignedBuffer<uint8_t> a_;
  cpu::AlignedBuffer<float> c_;
  ThreadPool* pool_;
};

struct Fixture {
  std::string name;
  std::unique_ptr<Backend> backend;
  int vocab;
  int64_t matrix_bytes = 0;  // read by each step; the embeddings are not
  double products = 0;       // of a token, lm_head included

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
    matrix_bytes =
        backend->info().weight_bytes -
        weights.embeddings.size() * static_cast<int64_t>(SizeOf(weights.embeddings.dtype));
    products = static_cast<double>(matrix_bytes) / static_cast<double>(SizeOf(dtype));
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
  // About what a language model gives: normal with a standard deviation of 3.
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0, 3);
  for (int i = 0; i < vocab; ++i) (*logits)[i] = normal(rng);
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

struct Rows {
  Fixture* fixture;
  Measurement* read;
  Measurement* peak;
  double peak_products;
  std::vector<Measurement*> steps;  // decode 1 first
};

void Print(const Rows& r) {
  const Fixture& f = *r.fixture;
  const double batch1 = r.steps[0]->Median();
  const double rate = r.peak_products / r.peak->Best();  // a limit of the machine
  std::printf("\n%s products, %s state\n", f.name.c_str(), Name(f.backend->info().state_dtype));
  for (const Measurement* m : r.steps) {
    const int tokens = std::atoi(m->name.c_str() + m->name.find_last_of(' '));
    std::printf(
        "  %-16s %9.3f ms (best %8.3f) %8.0f tok/s %6.2f x batch 1; products at peak %.3f ms\n",
        m->name.c_str(), m->Median() * 1e3, m->Best() * 1e3, tokens / m->Median(),
        tokens / m->Median() * batch1, tokens * f.products / rate * 1e3);
  }
  std::printf("  weights (%.1f MB) read once: %.3f ms, %.1f GB/s; decode 1 takes %.2f times that\n",
              static_cast<double>(f.matrix_bytes) * 1e-6, r.read->Median() * 1e3,
              static_cast<double>(f.matrix_bytes) / r.read->Median() * 1e-9,
              batch1 / r.read->Median());
  std::printf("  peak: %.0f G products/s\n", rate * 1e-9);
}

ModelWeights LargeModel() {
  ModelConfig c;
  c.num_heads = 8;
  c.head_dim = 128;
  c.hidden_size = 1024;
  c.num_layers = 12;
  c.intermediate_size = 2816;
  c.vocab_size = 4096;
  return MakeDummyWeights(c, DType::kBF16, 1);
}

ModelWeights EmbeddedModel() {
  auto weights =
      LoadModelWeights(HGRN2_SOURCE_DIR "/models/hgrn2-gutenberg-12m", LoadFormat::kAuto, 0);
  HGRN2_CHECK(weights.ok(), ToStd(weights.status().message()));
  return *std::move(weights);
}

int Main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : NumUsableCpus();
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 15;
  const bool large = argc > 3 && std::string(argv[3]) == "large";
  const ModelWeights weights = large ? LargeModel() : EmbeddedModel();
  std::vector<std::unique_ptr<Fixture>> fixtures;
  const auto add_fixture = [&](const char* name, DType dtype, DType state) {
    fixtures.push_back(std::make_unique<Fixture>(name, weights, dtype, state, threads));
  };
  add_fixture("bfloat16", DType::kBF16, DType::kF16);
  if (!large) {
    add_fixture("bfloat16", DType::kBF16, DType::kF32);
    add_fixture("float32", DType::kF32, DType::kF32);
  }
  ThreadPool pool(threads);
  std::vector<std::unique_ptr<Measurement>> all;
  const auto add = [&](std::string name, std::function<double()> run) {
    all.push_back(std::make_unique<Measurement>(Measurement{std::move(name), std::move(run), {}}));
    return all.back().get();
  };
  std::vector<Rows> models;
  for (auto& fixture : fixtures) {
    Fixture* const f = fixture.get();
    auto reader = std::make_shared<Reader>(f->matrix_bytes, &pool);
    auto peak = std::make_shared<Peak>(f->backend->info().dtype, &pool);
    Rows rows{f, nullptr, nullptr, peak->products(), {}};
    rows.read = add("read", Repeat(large ? 2 : 20, [reader] { reader->Read(); }));
    rows.peak = add("peak", Repeat(1, [peak] { peak->Run(); }));
    for (const int batch : {1, 2, 4, 8, 16, 32}) {
      rows.steps.push_back(
          add("decode " + std::to_string(batch),
              Repeat(large ? 1 : std::max(2, 20 / batch), [=] { f->Step(batch, 1, false); })));
    }
    rows.steps.push_back(add("prefill 256", Repeat(1, [=] { f->Step(1, 256, true); })));
    rows.steps.push_back(add("prefill 4x64 256", Repeat(1, [=] { f->Step(4, 64, true); })));
    models.push_back(rows);
  }
  // Items that wait for each other: the time until every thread has entered and left a phase.
  Measurement* const fork = add("fork-join", Repeat(500, [&] {
                                  std::atomic<int> arrived{0};
                                  pool.ForEach(threads, [&](int) {
                                    arrived.fetch_add(1);
                                    while (arrived.load() < threads) {
                                    }
                                  });
                                }));
  Measurement* const sample = add("sample", SampleRows(4096, 0.95f));
  Measurement* const sample_all = add("sample", SampleRows(4096, 1.0f));
  for (int round = 0; round < rounds; ++round) {
    for (auto& m : all) {
      m->run();  // brings its data into the caches
      m->seconds.push_back(m->run());
    }
  }
  std::printf("%s, %d rounds, medians\n", fixtures[0]->backend->info().device.c_str(), rounds);
  for (const Rows& rows : models) Print(rows);
  std::printf("\nfork-join: %.2f us (best %.2f)\n", fork->Median() * 1e6, fork->Best() * 1e6);
  std::printf("sample, V = 4096, temperature 0.8: top_p 0.95 %.2f us (best %.2f), off %.2f us\n",
              sample->Median() * 1e6, sample->Best() * 1e6, sample_all->Median() * 1e6);
  return 0;
}

}  // namespace
}  // namespace hgrn2

int main(int argc, char** argv) { return hgrn2::Main(argc, argv); }
