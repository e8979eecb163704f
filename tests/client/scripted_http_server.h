// A real HTTP server on a loopback port, speaking as OpenAI-compatible servers do, whose answers
// and their times a test writes.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/client/scripted_server.h"

namespace hgrn2::client {

enum class HttpStyle {
  kVllm,       // events with running usage, and token ids where asked for
  kPlain,      // events with text; usage in an event of its own at the end
  kNoStream,   // one JSON body, of known length
  kUntilEnd,   // events without framing; the connection ends with the answer
  kDropsKept,  // as kVllm, but closes each connection after an answer without having said so
};

struct HttpServerOptions {
  HttpStyle style = HttpStyle::kVllm;
  std::string tls_cert, tls_key;  // PEM files; empty: plain
  std::string api_key;            // if not empty, 401 without it
};

struct HttpSeen {
  std::string target;
  std::map<std::string, std::string> headers;  // names in lower case
  nlohmann::json body;
};

class ScriptedHttpServer {
 public:
  // The scripter gets id, max_tokens and prompt of the request. Script::http_status refuses.
  explicit ScriptedHttpServer(ScriptedServer::Scripter scripter, HttpServerOptions options = {});
  ~ScriptedHttpServer();

  std::string url() const;                 // with the name localhost, as in test certificates
  std::map<std::string, Served> served();  // by x-request-id
  std::vector<HttpSeen> requests();
  int connections() const { return connections_; }
  void Stop();

 private:
  template <typename Stream>
  void Serve(Stream* stream, boost::asio::ip::tcp::socket* socket);
  template <typename Stream>
  bool Answer(Stream* stream, boost::asio::ip::tcp::socket* socket, const HttpSeen& seen);
  void Accept();

  const ScriptedServer::Scripter scripter_;
  const HttpServerOptions options_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::optional<boost::asio::ssl::context> tls_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> connections_{0};
  std::thread accept_thread_;
  std::mutex mu_;
  std::vector<std::thread> threads_;
  std::vector<boost::asio::ip::tcp::socket*> sockets_;
  std::map<std::string, Served> served_;
  std::vector<HttpSeen> requests_;
};

}  // namespace hgrn2::client
