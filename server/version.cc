#include "server/version.h"

namespace hgrn2 {

const char* ServerVersion() { return HGRN2_VERSION; }

}  // namespace hgrn2
