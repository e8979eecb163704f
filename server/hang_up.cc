#include "server/hang_up.h"

#include <sys/socket.h>

#include "server/sockets.h"

namespace hgrn2 {

void HangUp(int port) {
  // Twice: a connection may be accepted while the listening sockets are being shut.
  for (int round = 0; round < 2; ++round) {
    ForEachOpenFile([port](int fd) {
      if (LocalPort(fd) == port) shutdown(fd, SHUT_RDWR);
      return true;
    });
  }
}

}  // namespace hgrn2
