#include "client/load/http_transport.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <utility>

#include "client/http_url.h"
#include "client/tls_context.h"

namespace hgrn2::client {
namespace {

namespace asio = boost::asio;

constexpr auto kConnectTimeout = std::chrono::seconds(10);
constexpr int kMaxOpening = 64;  // at a time: servers' queues of new connections are short
constexpr int kMaxOpenedAhead = 20'000;

// A connection is a descriptor, and 1024 is a usual limit.
void AllowManyDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::string FirstLine(const std::string& text) {
  constexpr size_t kMax = 200;
  return text.substr(0, std::min(text.find('\n'), kMax));
}

}  // namespace

grpc::StatusCode CodeOfHttpStatus(int status) {
  switch (status) {
    case 400:
    case 413:
    case 422:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case 401:
      return grpc::StatusCode::UNAUTHENTICATED;
    case 403:
      return grpc::StatusCode::PERMISSION_DENIED;
    case 404:
      return grpc::StatusCode::NOT_FOUND;
    case 408:
    case 504:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    case 429:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case 502:
    case 503:
      return grpc::StatusCode::UNAVAILABLE;
    default:
      return grpc::StatusCode::INTERNAL;
  }
}

class HttpTransport::Call : public HttpConnection::Exchange {
 public:
  Call(HttpTransport* t, Target* to, CallEvents* e) : transport(t), target(to), events(e) {}

  void SetTimeout(double seconds) {
    alive = std::make_shared<bool>(true);
    timer.emplace(transport->io_, std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
    // The wait may be over, but not yet told, when the call ends and is deleted.
    timer->async_wait([this, alive = std::weak_ptr<bool>(alive)](const auto& error) {
      if (error || alive.expired()) return;
      CloseAndEnd({grpc::StatusCode::DEADLINE_EXCEEDED, 0, "Deadline Exceeded"});
    });
  }

  void CloseAndEnd(const CallEnd& end) {
    if (connection != nullptr) connection->Close();
    transport->End(this, end);
  }

  bool OnSent() override { return events->OnStarted(); }

  bool OnEvent(std::string_view data) override {
    if (data == "[DONE]") {
      done_seen = true;
      return true;
    }
    OpenAiMessage& message = transport->message_;
    if (!ParseOpenAiMessage(data, &message)) {
      failure = {grpc::StatusCode::INTERNAL, 0, "event not understood: " + std::string(data)};
      return false;
    }
    if (message.is_error) {
      const int status = message.error_code;
      failure = {CodeOfHttpStatus(status), status >= 400 ? status : 0, message.error};
      return false;
    }
    return events->OnPart(answer.Add(message));
  }

  void OnAnswered(const HttpAnswerParser& http, HttpConnection* from) override {
    CallEnd end;
    OpenAiMessage& message = transport->message_;
    const bool event_stream = http.is_event_stream() && http.status() == 200;
    const bool parsed = !event_stream && ParseOpenAiMessage(http.body(), &message);
    if (http.status() != 200) {
      end = {CodeOfHttpStatus(http.status()), http.status(),
             parsed && message.is_error ? message.error : FirstLine(http.body())};
    } else if (event_stream && !done_seen && !answer.finished()) {
      end = {grpc::StatusCode::INTERNAL, 0, "the event stream ended early"};
    } else if (!event_stream && !(parsed && message.has_choice)) {
      end = {grpc::StatusCode::INTERNAL, 0, "answer not understood: " + FirstLine(http.body())};
    } else if (!event_stream) {  // the server does not stream
      events->OnPart(answer.Add(message));
    }
    if (from->is_open()) target->idle.push_back(std::move(connection));
    transport->End(this, end);
  }

  void OnFailed(const std::string& error, bool unanswered) override {
    connection = nullptr;
    if (unanswered && !retried) {  // the server closed a kept connection as the request was sent
      retried = true;
      transport->Begin(this);
      return;
    }
    transport->End(this, {grpc::StatusCode::UNAVAILABLE, 0, error});
  }

  void OnStopped() override { transport->End(this, failure); }

  HttpTransport* const transport;
  Target* const target;
  CallEvents* const events;
  std::string bytes;  // of the whole request
  OpenAiAnswer answer;
  std::shared_ptr<HttpConnection> connection;
  std::optional<asio::steady_timer> timer;
  std::shared_ptr<bool> alive;  // only with a timer
  bool done_seen = false;
  bool retried = false;
  CallEnd failure{grpc::StatusCode::CANCELLED, 0, "cancelled"};  // what OnStopped reports
};

HttpTransport::HttpTransport(ConnectionOptions connection, OpenAiRequestOptions request,
                             std::string endpoint)
    : connection_(std::move(connection)),
      request_(request),
      endpoint_(!endpoint.empty() ? std::move(endpoint)
                : request.chat    ? "/v1/chat/completions"
                                  : "/v1/completions"),
      work_(asio::make_work_guard(io_)) {}

HttpTransport::~HttpTransport() {
  for (auto& target : targets_) {
    for (auto& connection : target->idle) connection->Close();
  }
  work_.reset();
  io_.restart();
  io_.poll();  // handlers of what was closed
}

absl::Status HttpTransport::Connect(int connections, int expected) {
  AllowManyDescriptors();
  for (const std::string& target : connection_.targets) {
    if (absl::Status status = AddTarget(target); !status.ok()) return status;
  }
  const int each =
      (expected + static_cast<int>(targets_.size()) - 1) / static_cast<int>(targets_.size());
  return OpenAhead(std::min(std::max(connections, each), kMaxOpenedAhead));
}

absl::Status HttpTransport::AddTarget(const std::string& text) {
  absl::StatusOr<HttpUrl> url = ParseHttpUrl(text);
  if (!url.ok()) return url.status();
  std::string path = url->path;
  if (!path.empty() && path.back() == '/') path.pop_back();
  // The base URL of OpenAI's own clients ends with /v1, as does the beginning of the endpoint.
  constexpr std::string_view kVersion = "/v1";
  if (path.size() >= 3 && path.compare(path.size() - 3, 3, kVersion) == 0 &&
      endpoint_.compare(0, 4, "/v1/") == 0) {
    path.resize(path.size() - 3);
  }
  auto target = std::make_unique<Target>();
  target->name = text;
  if (url->tls && tls_ == nullptr) {
    auto context = MakeTlsContext(connection_);
    if (!context.ok()) return context.status();
    tls_ = *std::move(context);
  }
  target->endpoint.tls = url->tls ? tls_.get() : nullptr;
  target->endpoint.host =
      connection_.tls_server_name.empty() ? url->host : connection_.tls_server_name;
  boost::system::error_code error;
  asio::ip::tcp::resolver resolver(io_);
  for (const auto& entry : resolver.resolve(url->host, url->port, error)) {
    target->endpoint.addresses.push_back(entry.endpoint());
  }
  if (error || target->endpoint.addresses.empty()) {
    return absl::UnavailableError(fmt::format("{}: {}", text, error.message()));
  }
  target->head = fmt::format(
      "POST {}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: hgrn2-client\r\nAccept: text/event-stream\r\n"
      "Content-Type: application/json\r\n",
      path, endpoint_, url->host_header());
  for (const char c : connection_.api_key) {
    if (c < ' ' || c == 127) return absl::InvalidArgumentError("--api-key: control character");
  }
  if (!connection_.api_key.empty()) {
    target->head += "Authorization: Bearer " + connection_.api_key + "\r\n";
  }
  targets_.push_back(std::move(target));
  return absl::OkStatus();
}

// Opens `count` connections to each target, kMaxOpening at a time.
absl::Status HttpTransport::OpenAhead(int count) {
  std::string failure;
  asio::steady_timer timer(io_, kConnectTimeout);
  timer.async_wait([&](const boost::system::error_code& error) {
    if (error) return;
    failure = fmt::format("not connected within {} s", kConnectTimeout.count());
    io_.stop();
  });
  for (auto& target : targets_) {
    for (int opened = 0; opened < count && failure.empty();) {
      int opening = std::min(kMaxOpening, count - opened);
      opened += opening;
      for (int i = opening; i > 0; --i) {
        auto connection = std::make_shared<HttpConnection>(&io_, &target->endpoint);
        target->idle.push_back(connection);
        connection->Open([&](const std::string& error) {
          if (!error.empty()) failure = error;
          if (--opening == 0 || !failure.empty()) io_.stop();
        });
      }
      io_.restart();
      io_.run();
    }
    if (!failure.empty()) {
      for (auto& other : targets_) {
        for (auto& connection : other->idle) connection->Close();
        other->idle.clear();
      }
      timer.cancel();
      io_.restart();
      io_.poll();
      return absl::UnavailableError(fmt::format("{}: {}", target->name, failure));
    }
  }
  timer.cancel();
  io_.restart();
  io_.poll();
  io_.restart();
  return absl::OkStatus();
}

int HttpTransport::NextTarget() {
  return static_cast<int>(next_target_.fetch_add(1, std::memory_order_relaxed) % targets_.size());
}

void HttpTransport::Start(int target, const CallRequest& request, CallEvents* events) {
  Target* const to = targets_[target].get();
  Call* call = new Call(this, to, events);  // deleted by End
  std::string body;
  body.reserve(256 + 6 * request.prompt_ids.size());
  request_.AppendBody(request, &body);
  call->bytes = fmt::format("{}X-Request-Id: {}\r\nContent-Length: {}\r\n\r\n{}", to->head,
                            request.request_id, body.size(), body);
  const double timeout_s = request.timeout_s;
  asio::dispatch(io_, [this, call, timeout_s] {
    calls_.insert(call);
    if (timeout_s > 0) call->SetTimeout(timeout_s);
    Begin(call);
  });
}

void HttpTransport::Begin(Call* call) {
  call->connection = TakeConnection(call->target, call->retried);
  call->connection->Send(call->bytes, call);
}

std::shared_ptr<HttpConnection> HttpTransport::TakeConnection(Target* target, bool fresh) {
  while (!fresh && !target->idle.empty()) {
    std::shared_ptr<HttpConnection> connection = std::move(target->idle.back());
    target->idle.pop_back();
    if (connection->is_open()) return connection;
  }
  return std::make_shared<HttpConnection>(&io_, &target->endpoint);
}

void HttpTransport::End(Call* raw, const CallEnd& end) {
  const std::unique_ptr<Call> call(raw);
  calls_.erase(raw);
  const CallEnd copy = end;  // may be a member of the call
  call->events->OnEnd(copy);
}

void HttpTransport::CancelAll() {
  asio::post(io_, [this] {
    const std::vector<Call*> calls(calls_.begin(), calls_.end());
    for (Call* call : calls) {
      if (calls_.count(call) == 0) continue;
      call->CloseAndEnd({grpc::StatusCode::CANCELLED, 0, "cancelled"});
    }
  });
}

void HttpTransport::Run() { io_.run(); }

void HttpTransport::Shutdown() { io_.stop(); }

}  // namespace hgrn2::client
