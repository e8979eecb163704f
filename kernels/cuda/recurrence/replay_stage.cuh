// The pipeline of the replay kernel: where a stage lies in shared memory, and the warp that fills
// it.
//
// An item is (sequence, head). A block takes every gridDim.x-th item, or (DecodeStepParams::
// work_counters) the next that no block has taken; one warp fetches items into a ring of stages,
// four warps consume them.
#pragma once

#include <cuda.h>

#include <type_traits>

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/ring_cursor.cuh"

namespace hgrn2::cuda::replay {

inline constexpr int kDim = 128;  // K = V
inline constexpr int kWarps = 4;  // that consume
inline constexpr int kConsumers = kWarps * 32;
inline constexpr int kThreads = kConsumers + 32;
inline constexpr int kRows = kDim / kWarps;  // of the state, per warp
inline constexpr int kMaxStages = 8;
// Words between tokens in a warp's keys: lanes that read 8 channels of 4 pairs of tokens meet no
// bank twice.
inline constexpr int kKeyStride = kRows + 4;

struct KernelParams {
  DecodeStepParams p;
  int32_t stages = 0;
  // Fetch items that fold first: they take longest, and with few items nothing should wait for one
  // at the end. With many it would only keep reads and writes apart, which costs more.
  bool folds_first = false;
  // What is read goes out of L2 first. Better with few items, worse with many (measured).
  bool evict_first = false;
  // Claimed work: the first tickets are for `lists` lists of `list_items` items (at most 32), for
  // the blocks that start at once; each of the others is for one item.
  int32_t lists = 0, list_items = 0;
};

// What the fetching warp knows of an item.
struct alignas(16) Item {
  int row = 0;    // in qfi and o; < 0: no item, the block has done its part
  int slot = -1;  // < 0: padding
  int head = 0;
  int n = 0;   // tokens in the ring
  int x = -1;  // index the current token gets
  int fold = 0;
  int reset = 0;
};

// A stage, in bytes from its start, a multiple of 1024 (the swizzle's period).
//   state   boxes of [K][128 bytes]: 16-byte piece c of row r lies at piece c ^ (r % 8)
//   ring    [n + 1][2 (f, i)][K] bfloat16, oldest first, the current token last
//   and lower bounds, FP8 scales, q and the Item
template <typename S>
struct Stage {
  static constexpr int kBoxColumns = 128 / sizeof(S);
  static constexpr int kBoxes = kDim / kBoxColumns;
  static constexpr int kBoxBytes = kDim * 128;
  static constexpr int kStateBytes = kBoxes * kBoxBytes;
  static constexpr int kTokenBytes = 2 * kDim * 2;
  static constexpr int kBound = kStateBytes;
  static constexpr int kScales = kBound + kDim * 4;
  static constexpr int kQ = kScales + (kIsFp8<S> ? kDim * 4 : 0);
  static constexpr int kItem = kQ + kDim * 2;
  static constexpr int kRing = kItem + 64;
  static_assert(sizeof(Item) <= 64);

  __host__ __device__ static constexpr int Bytes(int length) {
    return (kRing + length * kTokenBytes + 1023) / 1024 * 1024;
  }
};

// What the consumers exchange.
struct Scratch {
  float partial[2][kWarps][kDim];  // sums over a warp's rows; by the item's parity
  float scores[2][kWarps][kMaxReplay];
  float q[kWarps][kRows];

  // Followed by keys: [warp][length rounded up to 16][kKeyStride].
  __host__ __device__ static constexpr int KeyWords(int length) {
    return (length + 15) / 16 * 16 * kKeyStride;
  }
  __host__ __device__ static constexpr int Bytes(int length) {
    return static_cast<int>(sizeof(Scratch)) + kWarps * KeyWords(length) * 4;
  }
};

// token: everything but the state has arrived; state; empty: the stage has been read.
struct Barriers {
  uint64_t token[kMaxStages], state[kMaxStages], empty[kMaxStages];
};
struct BarrierAddresses {
  uint32_t token, state, empty;
  __device__ __forceinline__ BarrierAddresses At(int stage) const {
    return {token + stage * 8, state + stage * 8, empty + stage * 8};
  }
};

// Barrier over the consumers.
__device__ __forceinline__ void ConsumerSync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

__device__ __forceinline__ Item Describe(const DecodeStepParams& p, int index) {
  Item item;
  const int b = index / p.num_heads;
  item.head = index - b * p.num_heads;
  item.slot = p.slots[b];
  item.row = p.token_rows != nullptr ? p.token_rows[b] : b;
  if (item.slot < 0) return item;
  item.reset = p.reset != nullptr && p.reset[b] != 0;
  const decode::RingCursor cursor = decode::CursorOf(p.ring, item.slot, item.reset != 0);
  item.n = cursor.n, item.x = cursor.x, item.fold = cursor.fold;
  return item;
}

__device__ __forceinline__ Item Broadcast(const Item& mine, int lane) {
  const auto from = [&](int x) { return __shfl_sync(0xffffffffu, x, lane); };
  Item item;
  item.row = from(mine.row), item.slot = from(mine.slot), item.head = from(mine.head);
  item.n = from(mine.n), item.x = from(mine.x);
  item.fold = from(mine.fold), item.reset = from(mine.reset);
  return item;
}

// One thread: asks for what was final before the kernel in front started. The ring first: its gates
// are computed while the state arrives.
template <typename S>
__device__ __forceinline__ void FetchState(const DecodeStepParams& p, const CUtensorMap& map,
                                           const Item& item, uint32_t stage,
                                           const BarrierAddresses& bar, uint64_t policy) {
  using L = Stage<S>;
  if (item.slot < 0) return MbarrierArrive(bar.state);
  const int64_t slot_head = static_cast<int64_t>(item.slot) * p.num_heads + item.head;
  const uint32_t ring_bytes = item.n * L::kTokenBytes;
  const uint32_t scale_bytes = kIsFp8<S> && !item.reset ? kDim * 4 : 0;
  MbarrierExpectMore(bar.token, kDim * 4 + ring_bytes + scale_bytes);
  BulkLoad(stage + L::kBound, p.lower_bound + item.head * kDim, kDim * 4, bar.token);
  if (ring_bytes > 0) {
    const auto* ring = static_cast<const char*>(p.ring.entries) +
                       (slot_head * p.ring.length + item.x - item.n) * L::kTokenBytes;
    BulkLoad(stage + L::kRing, ring, ring_bytes, bar.token, policy);
  }
  if (scale_bytes > 0)
    BulkLoad(stage + L::kScales, p.state.scales + slot_head * kDim, scale_bytes, bar.token, policy);
  if (item.reset) return MbarrierArrive(bar.state);
  MbarrierExpect(bar.state, L::kStateBytes);
#pragma unroll
  for (int box = 0; box < L::kBoxes; ++box)
    TensorLoad(stage + box * L::kBoxBytes, &map, box * L::kBoxColumns,
               static_cast<int>(slot_head * kDim), bar.state, policy);
}

// One thread: asks for the projections.
template <typename S>
__device__ __forceinline__ void FetchToken(const DecodeStepParams& p, const Item& item, char* stage,
                                           uint32_t token_bar) {
  using L = Stage<S>;
  *reinterpret_cast<Item*>(stage + L::kItem) = item;
  if (item.slot < 0) return MbarrierArrive(token_bar);
  MbarrierExpect(token_bar, 3 * kDim * 2);
  const int d = p.num_heads * kDim;
  const auto* qfi = static_cast<const __nv_bfloat16*>(p.qfi) +
                    static_cast<int64_t>(item.row) * 3 * d + item.head * kDim;
  const uint32_t base = SharedAddress(stage), token = base + L::kRing + item.n * L::kTokenBytes;
  BulkLoad(base + L::kQ, qfi, kDim * 2, token_bar);
  BulkLoad(token, qfi + d, kDim * 2, token_bar);
  BulkLoad(token + kDim * 2, qfi + 2 * d, kDim * 2, token_bar);
}

// The lanes whose items are still to come: all of `first`, then those of `then`.
struct Order {
  uint32_t first, then;
  __device__ __forceinline__ int Next() {
    if (first == 0) first = then, then = 0;
    const int lane = __ffs(static_cast<int>(first)) - 1;
    first &= first - 1;
    return lane;
  }
};

// One warp. Lanes look up slots and ages of 32 items at once; the first lane asks for bytes. The
// first stages' states are on their way before the projections are waited for.
template <typename S>
__device__ __forceinline__ void Produce(const KernelParams& params, const CUtensorMap& map,
                                        char* stages, const BarrierAddresses& barriers, int items) {
  const DecodeStepParams& p = params.p;
  const int lane = threadIdx.x % 32, stage_bytes = Stage<S>::Bytes(p.ring.length);
  const uint64_t policy = params.evict_first ? EvictFirstPolicy() : EvictNormalPolicy();
  StageCursor at;
#pragma unroll 1
  for (int base = 0; base < items; base += 32) {
    Item mine;
    if (base + lane < items)
      mine = Describe(p, static_cast<int>(blockIdx.x + (base + lane) * gridDim.x));
    const int count = min(32, items - base), early = base == 0 ? min(count, params.stages) : 0;
    const uint32_t all = __ballot_sync(0xffffffffu, lane < count);
    const uint32_t first = __ballot_sync(0xffffffffu, mine.fold != 0 || !params.folds_first) & all;
    const Order start = {first, all & ~first};
    Order order = start;
#pragma unroll 1
    for (int j = 0; j < early; ++j) {
      const Item item = Broadcast(mine, order.Next());
      if (lane == 0)
        FetchState<S>(p, map, item, SharedAddress(stages + j * stage_bytes), barriers.At(j),
                      policy);
      __syncwarp();
    }
    order = start;
    if (base == 0) {
      GridDependencyWait();  // also after a prefill: a fixed part would wait for late blocks anyway
      GridDependencyLaunch();
    }
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      const Item item = Broadcast(mine, order.Next());
      if (lane == 0) {
        char* stage = stages + at.stage * stage_bytes;
        const BarrierAddresses bar = barriers.At(at.stage);
        if (j >= early) {
          MbarrierWait(bar.empty, at.parity ^ 1);
          FetchState<S>(p, map, item, SharedAddress(stage), bar, policy);
        }
        FetchToken<S>(p, item, stage, bar.token);
      }
      at.Advance(params.stages);
      __syncwarp();
    }
  }
}

// The same for items that blocks take from a common counter: first a list of them, then one by one.
// The next ticket is asked for before the stages are waited for, so the counter's latency and the
// chain slot -> age -> address pass while the block works. A block that starts late takes what is
// left.
template <typename S>
__device__ __forceinline__ void ProduceClaimed(const KernelParams& params, const CUtensorMap& map,
                                               char* stages, const BarrierAddresses& barriers) {
  const DecodeStepParams& p = params.p;
  const int lane = threadIdx.x % 32, stage_bytes = Stage<S>::Bytes(p.ring.length);
  const int total = p.batch * p.num_heads, lists = params.lists,
            in_lists = lists * params.list_items;
  const uint64_t policy = params.evict_first ? EvictFirstPolicy() : EvictNormalPolicy();
  uint32_t* const taken = p.work_counters;
  uint32_t* const left = p.work_counters + 1;  // blocks that found nothing more
  if (!p.after_prefill) GridDependencyWait();
  GridDependencyLaunch();
  StageCursor at;
  uint32_t ticket = lane == 0 ? atomicAdd(taken, 1u) : 0;
#pragma unroll 1
  while (true) {
    const int number = static_cast<int>(__shfl_sync(0xffffffffu, ticket, 0));
    const bool is_list = number < lists;
    const int first = is_list ? number : in_lists + number - lists;
    if (first >= total) break;
    const int count = is_list ? min(params.list_items, (total - first - 1) / lists + 1) : 1;
    // Not sooner: a list's block would take the list of one that is about to start.
    const int ask_at = max(count - 2, 0);
    if (lane == 0 && !is_list) ticket = atomicAdd(taken, 1u);
    Item mine;
    if (lane < count) mine = Describe(p, first + lane * lists);
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      const Item item = Broadcast(mine, j);
      if (lane == 0) {
        if (is_list && j == ask_at) ticket = atomicAdd(taken, 1u);
        char* stage = stages + at.stage * stage_bytes;
        const BarrierAddresses bar = barriers.At(at.stage);
        MbarrierWait(bar.empty, at.parity ^ 1);
        FetchState<S>(p, map, item, SharedAddress(stage), bar, policy);
        FetchToken<S>(p, item, stage, bar.token);
      }
      at.Advance(params.stages);
      __syncwarp();
    }
  }
  if (lane != 0) return;
  const BarrierAddresses bar = barriers.At(at.stage);
  MbarrierWait(bar.empty, at.parity ^ 1);
  Item end;
  end.row = -1;
  FetchToken<S>(p, end, stages + at.stage * stage_bytes, bar.token);
  // The last block to leave: nobody touches the counters any more.
  __threadfence();
  if (atomicInc(left, gridDim.x - 1) == gridDim.x - 1) atomicExch(taken, 0u);
  if (p.after_prefill) GridDependencyWait();
}

}  // namespace hgrn2::cuda::replay
