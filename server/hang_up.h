#pragma once

namespace hgrn2 {

// Closes a TCP port of this process from below its server: it accepts nothing more, and its
// connections are ended once what was written has been sent. Peers see a closed connection, which
// to gRPC's clients is UNAVAILABLE; a call that meets a shutting-down grpc::Server is reset
// instead, which is CANCELLED to its client, and not to be retried.
void HangUp(int port);

}  // namespace hgrn2
