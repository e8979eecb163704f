// Products of a decode step one by one: cuBLASLt's first choice, its best of several, and the
// skinny kernel, each going round enough copies of the weights that none stays in the L2 cache.
//
//   gemm_bench [fp8]
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/gemm/gemm.h"
#include "kernels/cuda/gemm/skinny_gemm.h"

namespace hgrn2::cuda {
namespace {

#define CHECK_CUDA(expr)                                              \
  do {                                                                \
    if (cudaError_t e = (expr); e != cudaSuccess) {                   \
      std::fprintf(stderr, "%s: %s\n", #expr, cudaGetErrorString(e)); \
      std::exit(1);                                                   \
    }                                                                 \
  } while (false)

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

double SkinnyMicroseconds(SkinnyGemmParams p, const std::vector<MatrixView>& weights,
                          cudaStream_t stream) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  const int repeats = 4 * static_cast<int>(weights.size());
  for (int i = -4; i < repeats; ++i) {
    if (i == 0) cudaEventRecord(begin, stream);
    p.weight = weights[(i + 4) % weights.size()];
    CHECK_CUDA(SkinnyGemm(p, stream));
  }
  cudaEventRecord(end, stream);
  CHECK_CUDA(cudaEventSynchronize(end));
  float ms = 0;
  cudaEventElapsedTime(&ms, begin, end);
  return ms * 1000.0 / repeats;
}

void Product(const char* name, int64_t rows, int64_t cols, bool fp8, Gemm& gemm,
             cudaStream_t stream) {
  const DType type = fp8 ? DType::kF8E4M3 : DType::kBF16;
  const int64_t bytes = rows * cols * static_cast<int64_t>(SizeOf(type));
  float* scale = static_cast<float*>(Random((rows + 1024) * 4, false));
  std::vector<MatrixView> weights;
  uint8_t* all = static_cast<uint8_t*>(Random(bytes * 8, fp8));
  for (int i = 0; i < 8; ++i) weights.push_back({all + i * bytes, scale, type, rows, cols});
  void* x = Random(1024 * cols * 2, fp8);
  void* out = Random(1024 * rows * 2, false);
  for (const int tokens : {16, 32, 64, 128, 256, 512, 1024}) {
    GemmParams p = {weights[0], x, scale, out, DType::kBF16, tokens};
    double first = 0, best = 0, skinny = 0;
    const std::string error = gemm.Tune(p, weights, stream, 16, &first, &best);
    if (tokens <= kMaxSkinnyTokens) {
      skinny = SkinnyMicroseconds({weights[0], x, scale, out, DType::kBF16, tokens, true}, weights,
                                  stream);
    }
    const double floor = bytes / 3.0e6;
    std::printf(
        "%-8s %5ld x %5ld  T %4d  byte floor %6.1f us  cublaslt %6.1f  best of 16 %6.1f  "
        "(%4.0f TFLOP/s)  skinny %6.1f %s\n",
        name, static_cast<long>(rows), static_cast<long>(cols), tokens, floor, first, best,
        2e-6 * tokens * rows * cols / best, skinny, error.c_str());
  }
  cudaFree(all);
  cudaFree(x);
  cudaFree(out);
  cudaFree(scale);
}

int Main(bool fp8) {
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  CHECK_CUDA(InitSkinnyGemm());
  void* workspace = nullptr;
  CHECK_CUDA(cudaMalloc(&workspace, Gemm::kWorkspaceBytes));
  Gemm gemm;
  if (const std::string error = gemm.Init(workspace); !error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  Product("qfi", 3 * 2048, 2048, fp8, gemm, stream);
  Product("o", 2048, 2048, fp8, gemm, stream);
  Product("gate_up", 2 * 5632, 2048, fp8, gemm, stream);
  Product("down", 2048, 5632, fp8, gemm, stream);
  return 0;
}

}  // namespace
}  // namespace hgrn2::cuda

int main(int argc, char** argv) {
  return hgrn2::cuda::Main(argc > 1 && std::strcmp(argv[1], "fp8") == 0);
}
