#include "tests/backend/validation.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/check.h"
#include "tests/backend/backend_harness.h"
#include "tests/backend/sampling_reference.h"
#include "tests/testing/golden.h"
#include "tests/testing/oracle.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2::testing {
namespace {

// The number after `key` in an .npy header, from `at` on.
int64_t NumberAfter(const std::string& header, const std::string& key) {
  const size_t at = header.find(key);
  HGRN2_CHECK(at != std::string::npos, key);
  return std::stoll(header.substr(at + key.size()));
}

}  // namespace

ValidationSet LoadValidationSet() {
  const std::string file = ReadFile(SourcePath("tests/data/eval/valid_ids.npy"));
  HGRN2_CHECK(file.size() > 10 && file.compare(1, 5, "NUMPY") == 0, "not an .npy file");
  const size_t header_size = static_cast<uint8_t>(file[8]) + 256u * static_cast<uint8_t>(file[9]);
  const std::string header = file.substr(10, header_size);
  const int64_t num_rows = NumberAfter(header, "'shape': (");
  const int64_t columns = NumberAfter(header.substr(header.find("'shape'")), ", ");
  const size_t width = header.find("u2") != std::string::npos ? 2 : 4;
  HGRN2_CHECK(file.size() == 10 + header_size + num_rows * columns * width, header);
  ValidationSet set;
  const char* at = file.data() + 10 + header_size;
  for (int64_t r = 0; r < num_rows; ++r) {
    std::vector<int32_t>& row = set.rows.emplace_back(static_cast<size_t>(columns));
    for (int32_t& id : row) {
      std::memcpy(&id, at, width);
      at += width;
    }
  }
  return set;
}

namespace {

// Appends row[begin, end) as a scored part of the row.
void AddScored(StepBatch* batch, int32_t slot, const std::vector<int32_t>& row, size_t begin,
               size_t end) {
  AddSequence(batch, slot, {row.begin() + begin, row.begin() + end}, begin == 0)->score = true;
  for (size_t t = begin + 1; t <= end; ++t) {
    batch->score_targets.push_back(t < row.size() ? row[t] : -1);
  }
}

class MeanLoss {
 public:
  void Add(const StepResult& result) {
    for (const SequenceResult& sequence : result.sequences) {
      for (const TokenScore& s : sequence.scores) {
        sum_ -= s.logprob;
        ++count_;
      }
    }
  }
  double Get() const { return sum_ / static_cast<double>(count_); }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

}  // namespace

double BackendLoss(Backend* backend, const std::vector<std::vector<int32_t>>& rows) {
  const size_t step = static_cast<size_t>(backend->info().max_batched_tokens);
  MeanLoss loss;
  for (const std::vector<int32_t>& row : rows) {
    for (size_t begin = 0; begin < row.size(); begin += step) {
      const size_t end = std::min(row.size(), begin + step);
      StepBatch batch;
      AddScored(&batch, 0, row, begin, end);
      loss.Add(RunStep(backend, batch));
    }
  }
  return loss.Get();
}

double PackedLoss(Backend* backend, const std::vector<std::vector<int32_t>>& rows) {
  StepBatch batch;
  for (size_t i = 0; i < rows.size(); ++i) {
    AddScored(&batch, static_cast<int32_t>(i), rows[i], 0, rows[i].size());
  }
  MeanLoss loss;
  loss.Add(RunStep(backend, batch));
  return loss.Get();
}

double OracleLoss(const ModelWeights& weights, const std::vector<int32_t>& row) {
  const reference::Model oracle = MakeOracle(weights);
  reference::State state(oracle.shape);
  const std::vector<double> logits = reference::Forward(oracle, row, &state);
  const size_t vocab = static_cast<size_t>(oracle.shape.vocab_size);
  double sum = 0;
  for (size_t t = 0; t + 1 < row.size(); ++t) {
    sum -= ReferenceLogprobs(
        {logits.begin() + t * vocab, logits.begin() + (t + 1) * vocab})[row[t + 1]];
  }
  return sum / static_cast<double>(row.size() - 1);
}

}  // namespace hgrn2::testing
