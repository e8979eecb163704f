// Products of a decode step one by one, as CUDA graphs that go round enough copies of the weights
// that none stays in the L2 cache: cuBLASLt's first choice and its best of 16 against ways of
// cutting the product for our own kernel. FP8: `unscaled` is cuBLASLt without scales.
//
//   cuda_gemm_bench [fp8] [all] [own] [tokens=16,64,256]
//     all: every cut, not only the best and the one that is chosen; own: without cuBLASLt
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/gemm.h"

namespace hgrn2::cuda {
namespace {

#define CHECK_CUDA(expr)                                              \
  do {                                                                \
    if (cudaError_t e = (expr); e != cudaSuccess) {                   \
      std::fprintf(stderr, "%s: %s\n", #expr, cudaGetErrorString(e)); \
      std::exit(1);                                                   \
    }                                                                 \
  } while (false)

constexpr int kCopies = 8;

void* Random(size_t bytes, bool fp8) {
  std::vector<uint8_t> host(bytes);
  uint32_t x = 1;
  for (size_t i = 0; i < bytes; ++i) {
    x = x * 1664525u + 1013904223u;
    // Small numbers of either sign: exponents near the middle for fp8 and bfloat16 alike.
    host[i] = static_cast<uint8_t>(fp8 ? (x >> 24 & 0x8F) | 0x30
                                       : (i & 1 ? (x >> 24 & 0x80) | 0x3C : x >> 24));
  }
  void* p = nullptr;
  CHECK_CUDA(cudaMalloc(&p, bytes));
  CHECK_CUDA(cudaMemcpy(p, host.data(), bytes, cudaMemcpyHostToDevice));
  return p;
}

// Microseconds of one of the launches in a graph of 3 x kCopies.
double GraphMicroseconds(cudaStream_t stream, const std::function<void(int)>& launch) {
  constexpr int kRounds = 3, kReplays = 7;
  launch(0);
  CHECK_CUDA(cudaStreamSynchronize(stream));
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kRounds * kCopies; ++i) launch(i % kCopies);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = -2; i < kReplays; ++i) {
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaGraphLaunch(exec, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    float ms = 0;
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  return times[kReplays / 2] * 1000.0 / (kRounds * kCopies);
}

std::string Describe(const DecodeGemmShape& s) {
  char text[64];
  if (s.wide) {
    std::snprintf(text, sizeof(text), "%dx%d wide%s", s.row_tile, s.groups * 64,
                  s.together ? " together" : "");
  } else if (s.columns > 0) {
    std::snprintf(text, sizeof(text), "%dx%d columns split %d stages %d", s.row_tile, s.columns,
                  s.split, s.stages);
  } else {
    std::snprintf(text, sizeof(text), "%dx%d split %d stages %d", s.row_tile, s.groups * 64,
                  s.split, s.stages);
  }
  return text;
}

struct Bench {
  bool fp8 = false, all = false, own = false;
  std::vector<int> batches = {16, 64, 128, 256, 384, 512, 1024};
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  float* residual = nullptr;
  // Of DecodeGemmParams, for the most tokens.
  float* square_sums = nullptr;
  float* square_sums_out = nullptr;
  float* out_scale = nullptr;
  uint32_t* squares = nullptr;

  int64_t MostTokens() const { return std::ranges::max(batches); }

  std::vector<DecodeGemmShape> Cuts(int64_t rows, int64_t cols, int tokens, DType type,
                                    GemmEpilogue epilogue) const {
    std::vector<DecodeGemmShape> cuts;
    for (const int row_tile : kDecodeGemmRowTiles) {
      for (const int split : kDecodeGemmSplits) {
        DecodeGemmShape s;
        s.row_tile = row_tile, s.split = split, s.groups = DecodeGemmGroups(tokens, type);
        s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
        if (s.row_tile > 0 && s.blocks() <= 270 && s.blocks() >= 32) cuts.push_back(s);
      }
    }
    for (const int columns : kColumnGemmTiles) {
      DecodeGemmShape s;
      s.columns = columns;
      s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
      if (s.row_tile > 0 && s.blocks() <= 270) cuts.push_back(s);
    }
    if (tokens < 256) return cuts;
    for (const int row_tile : kWideGemmRowTiles) {
      for (const bool together : {false, true}) {
        DecodeGemmShape s;
        s.wide = true, s.row_tile = row_tile, s.together = together;
        s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
        if (s.row_tile > 0) cuts.push_back(s);
      }
    }
    return cuts;
  }

  void Product(const char* name, int64_t rows, int64_t cols, GemmEpilogue epilogue) {
    const DType type = fp8 ? DType::kF8E4M3 : DType::kBF16;
    const int64_t bytes = rows * cols * static_cast<int64_t>(SizeOf(type));
    float* scale = static_cast<float*>(Random((rows + MostTokens()) * 4, false));
    uint8_t* all_weights = static_cast<uint8_t*>(Random(bytes * kCopies, fp8));
    std::vector<MatrixView> weights;
    for (int i = 0; i < kCopies; ++i) {
      weights.push_back({all_weights + i * bytes, scale, type, rows, cols});
    }
    void* x = Random((MostTokens() + kDecodeGemmTokenTile) * cols * 2, fp8);
    void* out = Random(MostTokens() * rows * 2, false);
    for (const int tokens : batches) {
      Gemm gemm;
      if (!gemm.Init(workspace).empty()) std::exit(1);
      GemmParams p = {weights[0], x, scale, out, DType::kBF16, std::max(tokens, 64)};
      const auto cublas = [&](int i) {
        p.weight = weights[i];
        if (const std::string e = gemm.Run(p, stream); !e.empty()) std::puts(e.c_str());
      };
      double first = 0, best = 0, unscaled = 0, unused;
      if (!own) {
        first = GraphMicroseconds(stream, cublas);
        gemm.Tune(p, weights, stream, 16, &unused, &unused);
        best = GraphMicroseconds(stream, cublas);
      }
      if (fp8 && !own) {
        p.unscaled = true;
        unscaled = GraphMicroseconds(stream, cublas);
        p.unscaled = false;
      }
      const double floor = static_cast<double>(bytes) / 3.0e6;
      const double flop = 2.0 * tokens * static_cast<double>(rows * cols);
      std::printf("%-8s T %4d  floor %5.1f us", name, tokens, floor);
      if (!own) {
        std::printf("  cublaslt %6.1f, best of 16 %6.1f (%4.0f TFLOP/s)", first, best,
                    flop / best * 1e-6);
      }
      if (fp8 && !own) std::printf("  unscaled %6.1f", unscaled);
      Own(weights, x, scale, out, tokens, epilogue, floor);
      std::puts("");
      std::fflush(stdout);
    }
    cudaFree(all_weights);
    cudaFree(x);
    cudaFree(out);
    cudaFree(scale);
  }

  void Own(const std::vector<MatrixView>& weights, void* x, float* scale, void* out, int tokens,
           GemmEpilogue epilogue, double floor) {
    const MatrixView& w = weights[0];
    DecodeGemmParams p;
    p.x = x, p.x_scale = scale, p.tokens = tokens, p.epilogue = epilogue, p.out = out;
    p.residual = residual, p.next_norm = scale, p.square_sums_out = square_sums_out,
    p.overlap = true;
    p.residual_norm = scale, p.out_scale = out_scale, p.squares = squares;
    if (w.cols == 2048) {  // as in a step, where down has no norm in front of it
      p.square_sums = square_sums, p.num_square_sums = 64, p.eps = 1e-5f;
    }
    const auto time = [&](const DecodeGemmShape& shape) {
      return GraphMicroseconds(stream, [&](int i) {
        p.weight = weights[i];
        CHECK_CUDA(DecodeGemm(p, shape, stream));
      });
    };
    const DecodeGemmShape chosen = ChooseDecodeGemm(w.rows, w.cols, tokens, w.type, epilogue);
    const double chosen_us = time(chosen);
    DecodeGemmShape best = chosen;
    double best_us = chosen_us;
    std::string others;
    for (const DecodeGemmShape& s : Cuts(w.rows, w.cols, tokens, w.type, epilogue)) {
      const double us = time(s);
      if (us < best_us) best_us = us, best = s;
      char text[96];
      std::snprintf(text, sizeof(text), "\n    %s: %.1f", Describe(s).c_str(), us);
      others += text;
    }
    std::printf("  own %6.1f (%3.0f %% of floor; %s)  best %6.1f (%s)", chosen_us,
                100 * floor / chosen_us, Describe(chosen).c_str(), best_us, Describe(best).c_str());
    if (all) std::printf("%s", others.c_str());
  }
};

int Main(Bench bench) {
  CHECK_CUDA(cudaStreamCreate(&bench.stream));
  CHECK_CUDA(InitDecodeGemm());
  CHECK_CUDA(cudaMalloc(&bench.workspace, Gemm::kWorkspaceBytes));
  bench.residual = static_cast<float*>(Random(bench.MostTokens() * 2048 * 4, false));
  const auto floats = [&](int per_token) {
    return static_cast<float*>(Random(bench.MostTokens() * per_token * 4, false));
  };
  bench.square_sums = floats(64), bench.square_sums_out = floats(64), bench.out_scale = floats(1);
  bench.squares = reinterpret_cast<uint32_t*>(floats(kSquareStride));
  bench.Product("qfi", 3 * 2048, 2048, GemmEpilogue::kStore);
  bench.Product("o", 2048, 2048, GemmEpilogue::kResidual);
  bench.Product("gate_up", 2 * 5632, 2048, GemmEpilogue::kSwiGlu);
  bench.Product("down", 2048, 5632, GemmEpilogue::kResidual);
  bench.Product("head", 32000, 2048, GemmEpilogue::kStore);
  return 0;
}

}  // namespace
}  // namespace hgrn2::cuda

int main(int argc, char** argv) {
  hgrn2::cuda::Bench bench;
  for (int i = 1; i < argc; ++i) {
    bench.fp8 |= std::strcmp(argv[i], "fp8") == 0;
    bench.own |= std::strcmp(argv[i], "own") == 0;
    bench.all |= std::strcmp(argv[i], "all") == 0;
    if (std::strncmp(argv[i], "tokens=", 7) == 0) {
      bench.batches.clear();
      for (const char* at = argv[i] + 6; at != nullptr; at = std::strchr(at + 1, ',')) {
        bench.batches.push_back(std::atoi(at + 1));
      }
    }
  }
  return hgrn2::cuda::Main(bench);
}
