// Streaming calls to an OpenAI-compatible server over HTTP/1.1 or HTTPS. A connection carries one
// call at a time and is kept for the next; there are as many as calls in flight.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "client/connection.h"
#include "client/load/http_connection.h"
#include "client/load/openai_answer.h"
#include "client/load/openai_request.h"
#include "client/load/transport.h"

namespace hgrn2::client {

class HttpTransport : public Transport {
 public:
  // `endpoint`: path of the requests; empty: /v1/completions or /v1/chat/completions.
  HttpTransport(ConnectionOptions connection, OpenAiRequestOptions request, std::string endpoint);
  ~HttpTransport() override;

  absl::Status Connect(int connections, int expected) override;
  int NextTarget() override;
  void Start(int target, const CallRequest& request, CallEvents* events) override;
  void CancelAll() override;
  void Run() override;
  void Shutdown() override;

 private:
  class Call;
  struct Target {
    std::string name;  // for messages
    HttpEndpoint endpoint;
    std::string head;  // of each request, up to the headers that differ
    std::vector<std::shared_ptr<HttpConnection>> idle;
  };

  absl::Status AddTarget(const std::string& text);
  absl::Status OpenAhead(int count);
  void Begin(Call* call);
  std::shared_ptr<HttpConnection> TakeConnection(Target* target, bool fresh);
  // Ends a call, whose connection is closed or idle again.
  void End(Call* call, const CallEnd& end);

  const ConnectionOptions connection_;
  const OpenAiRequest request_;
  const std::string endpoint_;
  std::unique_ptr<boost::asio::ssl::context> tls_;  // null if no target wants it
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::vector<std::unique_ptr<Target>> targets_;
  std::atomic<uint64_t> next_target_{0};
  std::unordered_set<Call*> calls_;  // in flight; polling thread only
  OpenAiMessage message_;            // the one being read; reused. Polling thread only
};

// What gRPC would have said: the code that an HTTP status of a refusal corresponds to.
grpc::StatusCode CodeOfHttpStatus(int status);

}  // namespace hgrn2::client
