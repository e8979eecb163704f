#include "engine/loader/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/loader/status_matchers.h"
#include "tests/testing/safetensors_builder.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::SafetensorsBuilder;
using testing::SafetensorsFromHeader;

// REQUIRES: `file` outlives every use of the tensors' bytes.
absl::StatusOr<Safetensors> Parse(const std::string& file) {
  return Safetensors::Parse({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "f.st");
}

TEST(SafetensorsTest, ReadsWhatTheBuilderWrites) {
  const std::string file = SafetensorsBuilder()
                               .Add("a", DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6})
                               .Add("b", DType::kBF16, {2}, {-1, 0.5})
                               .Add("c", DType::kF16, {1, 1, 1}, {2})
                               .Add("d", "I64", {0, 7}, "")
                               .Add("e", "F32", {}, "1234")
                               .Build();
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->entries().size(), 5u);
  const SafetensorsEntry* a = tensors->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->weight_dtype(), DType::kF32);
  EXPECT_THAT(a->shape, ElementsAre(2, 3));
  const float expected[] = {1, 2, 3, 4, 5, 6};
  ASSERT_EQ(a->bytes.size(), sizeof(expected));
  EXPECT_EQ(std::memcmp(a->bytes.data(), expected, sizeof(expected)), 0);
  EXPECT_EQ(tensors->Find("b")->weight_dtype(), DType::kBF16);
  EXPECT_EQ(tensors->Find("c")->weight_dtype(), DType::kF16);
  EXPECT_EQ(tensors->Find("d")->weight_dtype(), std::nullopt);
  EXPECT_EQ(tensors->Find("e")->bytes.size(), 4u);
  EXPECT_EQ(tensors->Find("f"), nullptr);
}

TEST(SafetensorsTest, HeaderOrderIsNotDataOrder) {
  const std::string file =
      SafetensorsFromHeader(R"({"z":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
                            R"("y":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                            "abc");
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->Find("z")->bytes[0], 'c');
  EXPECT_EQ(tensors->entries()[0].name, "y");
}

TEST(SafetensorsTest, MetadataPaddingAndUnknownDtypesAreFine) {
  const auto tensors = Parse(SafetensorsFromHeader(
      R"({"__metadata__":{"format":"pt"},"x":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}    )",
      "a"));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->entries().size(), 1u);
  EXPECT_EQ(tensors->Find("x")->weight_dtype(), std::nullopt);
  EXPECT_TRUE(Parse(SafetensorsFromHeader("{}", "")).ok());
}

// A header that describes one tensor "t" in `data_bytes` bytes of data.
std::string OneTensor(const std::string& entry, size_t data_bytes) {
  return SafetensorsFromHeader("{\"t\":" + entry + "}", std::string(data_bytes, 'x'));
}

struct BadFile {
  std::string file;
  const char* expected;
};

std::vector<BadFile> BadFiles() {
  return {
      {"", "0 bytes are too few"},
      {"1234567", "7 bytes are too few"},
      {SafetensorsFromHeader(100, "{}", ""), "header length 100 is beyond the end of the file"},
      {SafetensorsFromHeader(3, "{}", ""), "header length 3 is beyond the end"},
      {SafetensorsFromHeader(UINT64_MAX, "{}", ""), "18446744073709551615 is over the limit"},
      {SafetensorsFromHeader(kMaxSafetensorsHeaderBytes + 1, "{}", ""),
       "over the limit of 16777216 bytes"},
      {SafetensorsFromHeader("", ""), "not valid JSON"},
      {SafetensorsFromHeader("{\"a\":", ""), "not valid JSON at byte"},
      {SafetensorsFromHeader("[]", ""), "must hold a JSON object"},
      {SafetensorsFromHeader("{\"a\":" + std::string(500, '['), ""), "nested deeper than 4"},
      {SafetensorsFromHeader(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                             "a"),
       "key \"t\" occurs twice"},
      {SafetensorsFromHeader(R"({"__metadata__":{"a":1}})", ""), "must map strings to strings"},
      {SafetensorsFromHeader(R"({"__metadata__":[]})", ""), "must map strings to strings"},
      {OneTensor("7", 0), "tensor \"t\": its header entry must be an object"},
      {OneTensor(R"({"shape":[1],"data_offsets":[0,1]})", 1), "dtype must be a string"},
      {OneTensor(R"({"dtype":8,"shape":[1],"data_offsets":[0,1]})", 1), "dtype must be a string"},
      {OneTensor(R"({"dtype":"U8","data_offsets":[0,1]})", 1), "shape must be a list"},
      {OneTensor(R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})", 1), "shape must be a list"},
      {OneTensor(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})", 1),
       "shape must hold integers in [0, 2^63)"},
      {OneTensor(R"({"dtype":"U8","shape":[1.0],"data_offsets":[0,1]})", 1), "must hold integers"},
      {OneTensor(R"({"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]})", 1),
       "must hold integers"},
      {OneTensor(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})", 1),
       "at most 8 sizes"},
      {OneTensor(R"({"dtype":"U8","shape":[1]})", 1), "data_offsets must be two"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[0]})", 1), "must be two"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,2]})", 1), "must be two"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[-1,0]})", 1), "must be two"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[1,0]})", 1), "must not fall"},
      {OneTensor(R"({"dtype":"U8","shape":[2],"data_offsets":[0,2]})", 1),
       "data_offsets end at byte 2 but the file holds 1 bytes of tensors (truncated?)"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,)"
                 R"(18446744073709551615]})",
                 1),
       "truncated?"},
      {OneTensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4),
       "shape [2] of F32 does not make the 4 bytes"},
      {OneTensor(R"({"dtype":"BF16","shape":[2],"data_offsets":[0,8]})", 8), "does not make"},
      // Products that wrap around to the right size, and to zero.
      {OneTensor(R"({"dtype":"U8","shape":[4611686018427387905,4],"data_offsets":[0,4]})", 4),
       "does not make"},
      {OneTensor(R"({"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,0]})", 0),
       "does not make"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})", 2),
       "begin at byte 1, leaving a hole after the end of the tensor before it at 0"},
      {OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})", 5),
       "the file holds 5 bytes of tensors but its header describes 1"},
      {SafetensorsFromHeader(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                             R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                             "abc"),
       "tensor \"b\": data_offsets begin at byte 1, overlapping"},
      {SafetensorsFromHeader(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                             R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                             "ab"),
       "overlapping"},
      {SafetensorsFromHeader("{\"a\\n\x1b[31m\":7}", ""), "not valid JSON"},
      {SafetensorsFromHeader("{\"a\\n\\u001b[31m\":7}", ""), "tensor \"a??[31m\""},
  };
}

TEST(SafetensorsTest, BadFilesAreRefused) {
  for (const BadFile& bad : BadFiles()) {
    const auto tensors = Parse(bad.file);
    ASSERT_FALSE(tensors.ok()) << bad.expected;
    EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(tensors), ::testing::StartsWith("f.st: "));
    EXPECT_THAT(Message(tensors), HasSubstr(bad.expected));
    EXPECT_TRUE(IsOneSentence(Message(tensors)));
  }
}

// Whatever the place at which a good file is cut, it is refused.
TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string file = SafetensorsBuilder()
                               .Add("a", DType::kF32, {2}, {1, 2})
                               .Add("b", DType::kBF16, {3}, {1, 2, 3})
                               .Build();
  ASSERT_TRUE(Parse(file).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(Parse(file.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(Parse(file + "x").ok());
}

TEST(OpenSafetensorsTest, FileErrorsNameThePath) {
  const testing::TempDir dir;
  const auto missing = OpenSafetensors(dir.File("no.safetensors"));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing), HasSubstr(dir.File("no.safetensors") + ": cannot open"));
  EXPECT_THAT(Message(OpenSafetensors(dir.path())), HasSubstr("is not a regular file"));
  EXPECT_THAT(Message(OpenSafetensors(dir.Write("empty", ""))), HasSubstr("0 bytes are too few"));
}

TEST(OpenSafetensorsTest, ViewsOutliveAMove) {
  const testing::TempDir dir;
  const std::string path =
      dir.Write("x.safetensors", SafetensorsBuilder().Add("a", "U8", {3}, "abc").Build());
  auto opened = OpenSafetensors(path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const SafetensorsFile file = *std::move(opened);
  EXPECT_EQ(file.tensors.Find("a")->bytes[2], 'c');
}

}  // namespace
}  // namespace hgrn2
