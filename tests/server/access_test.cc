// TLS and API keys of the gRPC port: the real server, gRPC's own client and hgrn2-client.
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

#include "tests/server/integration_fixture.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2::testing {
namespace {

class AccessTest : public ::testing::Test {
 protected:
  // An authority, and certificates of it for localhost and for a client.
  static void SetUpTestSuite() {
    directory_.emplace();  // its own: ctest runs the suite's tests side by side
    const std::string make =
        "set -e; cd " + directory_->path() +
        "; exec 2>openssl.log; new() { openssl req -newkey rsa:2048 -nodes -subj /CN=$1 -keyout "
        "$1.key -out $1.csr; }; sign() { openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key "
        "-CAcreateserial -days 2 -out $1.pem $2 $3; }; "
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out "
        "ca.pem; echo subjectAltName=DNS:localhost > san; new localhost; sign localhost -extfile "
        "san; new client; sign client; printf 'secret\\nsecond\\n' > keys";
    have_certificates_ = std::system(make.c_str()) == 0;
  }
  static void TearDownTestSuite() { directory_.reset(); }
  void SetUp() override {
    if (!have_certificates_) GTEST_SKIP() << "no openssl command: " << Read("openssl.log");
  }

  static std::string File(const std::string& name) { return directory_->File(name); }
  static std::string Read(const std::string& name) {
    std::stringstream text;
    text << std::ifstream(File(name)).rdbuf();
    return text.str();
  }
  static std::vector<std::string> TlsFlags() {
    return {"--grpc-tls-cert", File("localhost.pem"), "--grpc-tls-key", File("localhost.key")};
  }

  void Start(std::vector<std::string> flags) {
    server_.emplace(ServerProcess::WithModel(std::move(flags)));
    ASSERT_TRUE(server_->WaitUntilListening()) << server_->log();
  }
  grpc::Status GetModel(std::shared_ptr<grpc::ChannelCredentials> credentials,
                        const std::string& authorization = "") const {
    const auto channel = grpc::CreateChannel("localhost:" + std::to_string(server_->grpc_port()),
                                             std::move(credentials));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    v1::GetModelResponse model;
    return v1::Inference::NewStub(channel)->GetModel(&context, {}, &model);
  }
  // Exit status and output of hgrn2-client.
  std::pair<int, std::string> Client(const std::string& arguments) const {
    const std::string command = std::string(HGRN2_CLIENT_BINARY) + " " + arguments +
                                " --target localhost:" + std::to_string(server_->grpc_port()) +
                                " > " + File("out") + " 2>&1";
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), Read("out")};
  }
  void Stop() {
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->WaitForExit(), 0) << server_->log();
  }

  static inline std::optional<TempDir> directory_;
  static inline bool have_certificates_ = false;
  std::optional<ServerProcess> server_;
};

TEST_F(AccessTest, KeysGuardEveryMethodWithAndWithoutTls) {
  Start({"--grpc-api-key", "first", "--grpc-api-key-file", File("keys")});
  const auto plain = grpc::InsecureChannelCredentials();
  for (const char* good : {"Bearer first", "bearer secret", "Bearer second"}) {
    EXPECT_TRUE(GetModel(plain, good).ok()) << good;
  }
  for (const char* bad : {"", "first", "Bearer", "Bearer firs", "Bearer first2", "Basic first"}) {
    EXPECT_EQ(GetModel(plain, bad).error_code(), grpc::StatusCode::UNAUTHENTICATED) << bad;
  }
  for (const char* command :
       {"info", "complete --max-tokens 2 hi", "complete --no-stream hi", "score --context a b",
        "tokenize hi", "detokenize 1", "load --requests 1 --vocab-size 100 --quiet"}) {
    const auto [status, output] = Client(command);
    EXPECT_NE(status, 0) << command;
    if (status == 1) {
      EXPECT_NE(output.find("UNAUTHENTICATED"), std::string::npos) << command << "\n" << output;
    }
  }
  EXPECT_EQ(Client("health").first, 0);  // for probes, which have no key
  EXPECT_EQ(Client("complete --max-tokens 2 hi --api-key secret").first, 0);
  Stop();
}

TEST_F(AccessTest, TlsAndTheLoadClient) {
  std::vector<std::string> flags = TlsFlags();
  flags.insert(flags.end(), {"--grpc-api-key", "secret"});
  Start(std::move(flags));
  grpc::SslCredentialsOptions trust;
  trust.pem_root_certs = Read("ca.pem");
  EXPECT_TRUE(GetModel(grpc::SslCredentials(trust), "Bearer secret").ok());
  EXPECT_EQ(GetModel(grpc::SslCredentials(trust)).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(GetModel(grpc::SslCredentials({}), "Bearer secret").error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(GetModel(grpc::InsecureChannelCredentials(), "Bearer secret").error_code(),
            grpc::StatusCode::UNAVAILABLE);
  const auto [status, output] = Client(
      "load --requests 6 --concurrency 2 --output-tokens 4 --quiet --api-key secret --tls-ca " +
      File("ca.pem"));
  EXPECT_EQ(status, 0) << output;
  EXPECT_NE(output.find("Successful requests:                                   6"),
            std::string::npos)
      << output;
  Stop();
}

TEST_F(AccessTest, ClientCertificates) {
  std::vector<std::string> flags = TlsFlags();
  flags.insert(flags.end(), {"--grpc-tls-client-ca", File("ca.pem")});
  Start(std::move(flags));
  const std::string trusting = "info --tls-ca " + File("ca.pem");
  EXPECT_EQ(Client(trusting + " --timeout 5").first, 1);
  const auto [status, output] =
      Client(trusting + " --tls-cert " + File("client.pem") + " --tls-key " + File("client.key"));
  EXPECT_EQ(status, 0) << output;
  Stop();
}

TEST_F(AccessTest, BadFilesAreNamed) {
  const auto fails = [](std::vector<std::string> flags, const std::string& with) {
    ServerProcess server(ServerProcess::WithModel(std::move(flags)));
    EXPECT_FALSE(server.WaitUntilListening());
    EXPECT_NE(server.WaitForExit(), 0);
    EXPECT_NE(server.log().find(with), std::string::npos) << server.log();
  };
  fails({"--grpc-tls-cert", File("localhost.pem")}, "belong together");
  fails({"--grpc-tls-cert", File("none"), "--grpc-tls-key", File("localhost.key")},
        "grpc-tls-cert");
  fails({"--grpc-tls-cert", File("san"), "--grpc-tls-key", File("localhost.key")}, "is not PEM");
  fails({"--grpc-tls-cert", File("localhost.pem"), "--grpc-tls-key", File("client.key")},
        "do not fit");
  fails({"--grpc-tls-client-ca", File("ca.pem")}, "grpc-tls-client-ca");
  fails({"--grpc-api-key-file", File("none")}, "grpc-api-key-file");
}

}  // namespace
}  // namespace hgrn2::testing
