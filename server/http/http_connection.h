// One client connection of HttpServer. Included by http_server.cc, io_thread.cc and
// http_connection.cc alone: Boost.Asio takes long to compile.
#pragma once

#include <boost/asio/dispatch.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/active_calls.h"
#include "server/http/io_thread.h"
#include "server/http/request_parser.h"

namespace hgrn2 {

// Runs on its I/O thread, except where said. Keeps itself alive while open, or while a responder is
// in a handler's hands.
//
// One request at a time: what a client sends ahead waits in `input_`, at most one request's worth,
// beyond which the socket is not read. While a handler works, the socket is read all the same, to
// hear of a client that goes away.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Time = std::chrono::steady_clock::time_point;

  HttpConnection(boost::asio::ip::tcp::socket socket, std::shared_ptr<IoThread> thread);
  void Start();
  // Fails whatever is under way.
  void Close();
  // Called by the sweep.
  void CheckDeadline(Time now);

  // From any thread: runs a step of an answer on the I/O thread. Dropped if the server is stopping.
  template <typename Step>
  void Post(Step step) {
    if (thread_->shared->stopping) return;
    boost::asio::post(thread_->context, [self = shared_from_this(),
                                         step = std::move(step)]() mutable { step(*self); });
  }
  // The same, but at once if this is the I/O thread. What that thread posts to itself comes after
  // what other threads post until its handler returns: a step that has to be ahead of theirs must
  // not be posted.
  template <typename Step>
  void Dispatch(Step step) {
    if (thread_->shared->stopping) return;
    boost::asio::dispatch(thread_->context, [self = shared_from_this(),
                                             step = std::move(step)]() mutable { step(*self); });
  }
  // Steps of an answer.
  void Listen(std::shared_ptr<HttpStreamListener> listener);
  void SendWhole(HttpResponse response, const HttpHeaders& extra);
  void BeginStream(HttpResponse head, const HttpHeaders& extra);
  void WriteStream(std::string_view piece);
  void FinishStream();

 private:
  enum class Phase {
    kIdle,       // between requests
    kHead,       // a request's head is arriving
    kBody,       // its body is
    kAnswering,  // a handler has it
    kWriting,    // the answer is whole and going out
    kLingering,  // answered; what the client still sends is thrown away
    kClosed,
  };

  void Enter(Phase phase, std::chrono::milliseconds timeout);
  void WaitReadable();
  void OnReadable();
  void OnInput(std::string_view bytes);
  void OnPeerClosed();
  void TakeInput();
  void OnBodyBegins();
  void Route();
  void Refuse(int status, std::string_view message);
  void AppendHead(const HttpResponse& response, const HttpHeaders& extra);
  void AppendPiece(std::string_view piece);
  void Flush();
  void OnFlushed();
  void EndAnswer();
  void Report();

  const std::shared_ptr<IoThread> thread_;
  const HttpServerOptions& options_;
  boost::asio::ip::tcp::socket socket_;
  Phase phase_ = Phase::kIdle;
  Time deadline_ = Time::max();        // of the phase
  Time write_deadline_ = Time::max();  // of the socket's taking more
  bool reading_ = false;               // a wait for readability is under way
  bool peer_closed_ = false;           // sends no more

  std::string input_;  // received, not yet taken by the parser
  std::optional<HttpRequestParser> parser_;
  size_t lingered_ = 0;  // bytes thrown away

  // The request being answered.
  std::string path_;
  bool head_only_ = false;
  bool keep_alive_ = false;
  bool chunked_ = false;
  int status_ = 0;
  std::shared_ptr<HttpStreamListener> listener_;
  std::optional<ActiveCalls::Lease> busy_;

  std::string pending_;   // to be sent
  std::string outgoing_;  // being sent
  size_t sent_ = 0;       // of outgoing_
  bool waiting_to_write_ = false;
};

}  // namespace hgrn2
