// Replay decode on Hopper for the shapes that matter most: a pipeline in every multiprocessor
// instead of a block per tile (replay_step.cu). What it does not serve, decode_step.cu does.
#pragma once

#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda::replay {

// A ring, head dim 128, a state of at most 16 bits, bfloat16 activations, and a device for which
// the kernel was compiled. A function of shapes, types and device alone: a sequence takes the same
// kernel in every batch.
bool Serves(const DecodeStepParams& params);
// REQUIRES: Serves(params), and LaunchDecodeStep's checks.
cudaError_t Launch(const DecodeStepParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda::replay
