// Early-return helpers for absl::Status. Errors from outside (files, flags, RPC) travel as Status;
// broken invariants use HGRN2_CHECK (base/check.h).
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define HGRN2_CONCAT_INNER_(a, b) a##b
#define HGRN2_CONCAT_(a, b) HGRN2_CONCAT_INNER_(a, b)

#define RETURN_IF_ERROR(expr)                                                           \
  do {                                                                                  \
    if (absl::Status hgrn2_status_ = (expr); !hgrn2_status_.ok()) return hgrn2_status_; \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL_(HGRN2_CONCAT_(hgrn2_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr)   \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = std::move(tmp).value()
