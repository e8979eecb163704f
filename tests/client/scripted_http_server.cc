#include "tests/client/scripted_http_server.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <istream>

namespace hgrn2::client {
namespace {

namespace asio = boost::asio;
using Json = nlohmann::json;
using boost::system::error_code;

bool PeerIsGone(asio::ip::tcp::socket* socket) {
  pollfd fd{socket->native_handle(), POLLIN | POLLRDHUP, 0};
  return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

template <typename Stream>
bool ReadRequest(Stream* stream, asio::streambuf* buffer, HttpSeen* seen) {
  error_code error;
  asio::read_until(*stream, *buffer, "\r\n\r\n", error);
  if (error) return false;
  std::istream in(buffer);
  std::string line;
  std::getline(in, line);
  seen->target = line.substr(0, line.rfind(' '));
  while (std::getline(in, line) && line != "\r") {
    const size_t colon = line.find(':');
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(), ::tolower);
    seen->headers[name] = line.substr(colon + 2, line.size() - colon - 3);
  }
  if (seen->headers.count("content-length") == 0) return true;
  const size_t length = std::stoul(seen->headers["content-length"]);
  if (buffer->size() < length) {
    asio::read(*stream, *buffer, asio::transfer_exactly(length - buffer->size()), error);
    if (error) return false;
  }
  std::string body(length, '\0');
  in.read(body.data(), static_cast<std::streamsize>(length));
  seen->body = Json::parse(body, nullptr, false);
  return true;
}

v1::GenerateRequest ToProto(const HttpSeen& seen) {
  v1::GenerateRequest request;
  const auto id = seen.headers.find("x-request-id");
  if (id != seen.headers.end()) request.set_request_id(id->second);
  const Json& prompt = seen.body.value("prompt", Json());
  auto* to = request.add_prompts();
  if (prompt.is_array()) {
    for (const Json& token : prompt) to->mutable_tokens()->add_ids(token.get<int>());
  } else if (prompt.is_string()) {
    to->set_text(prompt.get<std::string>());
  }
  request.mutable_sampling()->set_max_tokens(seen.body.value("max_tokens", 16));
  return request;
}

Json Usage(const HttpSeen& seen, size_t tokens) {
  const Json& prompt = seen.body.value("prompt", Json::array());
  return {{"prompt_tokens", prompt.size()},
          {"completion_tokens", tokens},
          {"prompt_tokens_details", {{"cached_tokens", 4}}}};
}

// The event of token i; the last one has a finish_reason.
Json Event(const HttpSeen& seen, HttpStyle style, size_t i, bool last, double queue_s) {
  Json choice{{"index", 0}, {"finish_reason", last ? Json("length") : Json()}};
  const std::string text = i == 0 ? "Hel\"lo" : fmt::format(" w{}", i);
  if (seen.body.contains("messages")) {
    choice["delta"] = {{"content", text}};
  } else {
    choice["text"] = text;
  }
  Json event{{"id", "cmpl-1"}, {"object", "text_completion"}, {"choices", {choice}}};
  if (style == HttpStyle::kPlain) return event;
  event["usage"] = Usage(seen, i + 1);
  if (seen.body.value("return_token_ids", false)) event["choices"][0]["token_ids"] = {100 + i};
  if (last) event["timing"] = {{"queue", queue_s}, {"prefill", 0.01}, {"decode", 0.02}};
  return event;
}

std::string Chunk(const std::string& data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

std::string WholeAnswer(int status, const Json& json) {
  const std::string body = json.dump();
  return fmt::format(
      "HTTP/1.1 {} Some Reason\r\ncontent-type: application/json\r\nContent-Length: {}\r\n\r\n{}",
      status, body.size(), body);
}

}  // namespace

ScriptedHttpServer::ScriptedHttpServer(ScriptedServer::Scripter scripter, HttpServerOptions options)
    : scripter_(std::move(scripter)),
      options_(std::move(options)),
      acceptor_(io_, {asio::ip::address_v4::loopback(), 0}) {
  if (!options_.tls_cert.empty()) {
    tls_.emplace(asio::ssl::context::tls_server);
    tls_->use_certificate_chain_file(options_.tls_cert);
    tls_->use_private_key_file(options_.tls_key, asio::ssl::context::pem);
  }
  accept_thread_ = std::thread([this] { Accept(); });
}

ScriptedHttpServer::~ScriptedHttpServer() { Stop(); }

std::string ScriptedHttpServer::url() const {
  return fmt::format("{}://localhost:{}", tls_ ? "https" : "http",
                     acceptor_.local_endpoint().port());
}

std::map<std::string, Served> ScriptedHttpServer::served() {
  std::lock_guard lock(mu_);
  return served_;
}

std::vector<HttpSeen> ScriptedHttpServer::requests() {
  std::lock_guard lock(mu_);
  return requests_;
}

void ScriptedHttpServer::Stop() {
  if (stopping_.exchange(true)) return;
  error_code ignored;
  ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
  accept_thread_.join();
  {
    std::lock_guard lock(mu_);
    for (auto* socket : sockets_) socket->shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  }
  for (std::thread& thread : threads_) thread.join();
}

void ScriptedHttpServer::Accept() {
  while (!stopping_) {
    auto socket = std::make_unique<asio::ip::tcp::socket>(io_);
    error_code error;
    acceptor_.accept(*socket, error);
    if (error) continue;
    ++connections_;
    socket->set_option(asio::ip::tcp::no_delay(true), error);
    std::lock_guard lock(mu_);
    sockets_.push_back(socket.get());
    threads_.emplace_back([this, owned = std::move(socket)] {
      if (tls_) {
        asio::ssl::stream<asio::ip::tcp::socket&> stream(*owned, *tls_);
        error_code error;
        stream.handshake(asio::ssl::stream_base::server, error);
        if (!error) Serve(&stream, owned.get());
      } else {
        Serve(owned.get(), owned.get());
      }
      std::lock_guard lock(mu_);
      std::erase(sockets_, owned.get());
    });
  }
}

template <typename Stream>
void ScriptedHttpServer::Serve(Stream* stream, asio::ip::tcp::socket* socket) {
  asio::streambuf buffer;
  HttpSeen seen;
  while (!stopping_ && ReadRequest(stream, &buffer, &seen)) {
    if (!Answer(stream, socket, seen)) return;
    seen = {};
  }
}

// False: the connection is to end.
template <typename Stream>
bool ScriptedHttpServer::Answer(Stream* stream, asio::ip::tcp::socket* socket,
                                const HttpSeen& seen) {
  error_code error;
  const auto send = [&](const std::string& bytes) {
    asio::write(*stream, asio::buffer(bytes), error);
  };
  const auto authorization = seen.headers.find("authorization");
  if (!options_.api_key.empty() && (authorization == seen.headers.end() ||
                                    authorization->second != "Bearer " + options_.api_key)) {
    send(WholeAnswer(401, {{"error", {{"message", "wrong key"}, {"code", "invalid_api_key"}}}}));
    return !error;
  }
  if (seen.target == "GET /v1/models") {
    send(WholeAnswer(200, {{"data", {{{"id", "scripted"}}}}}));
    return false;
  }
  Served served;
  served.arrived = std::chrono::steady_clock::now();
  const v1::GenerateRequest request = ToProto(seen);
  const Script script = scripter_(request, served.arrived);
  {
    std::lock_guard lock(mu_);
    requests_.push_back(seen);
  }
  if (script.http_status != 0) {
    send(
        WholeAnswer(script.http_status, {{"error", {{"message", script.status.error_message()}}}}));
    return !error;
  }
  const HttpStyle style = options_.style;
  const bool chunked = style != HttpStyle::kUntilEnd;
  const auto event = [&](const std::string& data) {
    const std::string text = "data: " + data + "\n\n";
    send(chunked ? Chunk(text) : text);
  };
  if (style != HttpStyle::kNoStream) {
    send(fmt::format("HTTP/1.{} 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{}\r\n",
                     chunked ? 1 : 0, chunked ? "Transfer-Encoding: chunked\r\n" : ""));
    send(chunked ? Chunk(": a comment\n") : ": a comment\n");
  }
  const size_t count = script.token_at_s.size();
  for (size_t i = 0; i < count && !stopping_ && !PeerIsGone(socket); ++i) {
    std::this_thread::sleep_until(served.arrived + std::chrono::nanoseconds(static_cast<int64_t>(
                                                       script.token_at_s[i] * 1e9)));
    served.written.push_back(std::chrono::steady_clock::now());
    if (style == HttpStyle::kNoStream) continue;
    event(Event(seen, style, i, i + 1 == count, script.queue_s).dump());
  }
  while (script.wait_for_cancel && !PeerIsGone(socket) && !stopping_) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  served.cancelled = PeerIsGone(socket);
  {
    std::lock_guard lock(mu_);
    served_[request.request_id()] = served;
  }
  if (!script.status.ok()) {
    event(Json{{"error", {{"message", script.status.error_message()}, {"code", 500}}}}.dump());
  } else if (style == HttpStyle::kNoStream) {
    Json json = Event(seen, HttpStyle::kVllm, count - 1, true, script.queue_s);
    send(WholeAnswer(200, json));
    return !error;
  } else {
    if (style == HttpStyle::kPlain) {
      event(Json{{"choices", Json::array()}, {"usage", Usage(seen, count)}}.dump());
    }
    event("[DONE]");
  }
  if (chunked) send("0\r\n\r\n");
  if (style == HttpStyle::kUntilEnd || style == HttpStyle::kDropsKept) {
    socket->shutdown(asio::ip::tcp::socket::shutdown_both, error);
    return false;
  }
  return !error;
}

}  // namespace hgrn2::client
