// Where a sequence stands in its ring of tokens.
#pragma once

#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda::decode {

struct RingCursor {
  int n;      // tokens in the ring, at indices [x - n, x)
  int x;      // index the current token gets; -1: none
  bool fold;  // this step writes the state
};

__device__ __forceinline__ RingCursor CursorOf(const ReplayRing& ring, int slot, bool reset) {
  if (ring.length <= 1 || reset) return {0, ring.length <= 1 ? 0 : -1, true};
  const int age = ring.age[slot];
  const int x = static_cast<int>((static_cast<uint32_t>(age) + static_cast<uint32_t>(ring.phase)) %
                                 static_cast<uint32_t>(ring.length));
  return {age < x ? age : x, x, x == ring.length - 1};
}

}  // namespace hgrn2::cuda::decode
