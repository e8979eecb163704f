// hgrn2-client: the command-line client and load generator of the HGRN2 server.
#include "client/cli.h"
#include "client/interrupt.h"

int main(int argc, char** argv) {
  hgrn2::client::InstallInterruptThread();
  return hgrn2::client::RunCommandLine(argc, argv);
}
