#!/usr/bin/env python3
"""Checks the dependency direction of docs/design.md by the #include lines of every source file.

  client -> proto <- server -> engine -> kernels       server, engine -> base
  bench, tests, tools -> anything. No cycles, no other direction; kernels use no third-party library
  but SIMD and CUDA ones.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = {
    "base": {"base"},
    "kernels": {"kernels"},
    "engine": {"engine", "kernels", "base"},
    "server": {"server", "engine", "kernels", "base", "proto"},
    "client": {"client", "proto"},
}
FORBIDDEN_EXTERNAL = {
    "kernels": r"^(absl|fmt|spdlog|nlohmann|grpc|google|prometheus|boost)",
    "engine": r"^(grpc|google/protobuf|prometheus|boost|CLI)",
    "base": r"^(grpc|google/protobuf|prometheus|boost|CLI|nlohmann)",
    "client": r"^(prometheus|spdlog)",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
PROTO = re.compile(r"^(hgrn2/v1|kserve|google/rpc|grpc/health)/.*\.pb\.h$")


def folder_of(path):
    if PROTO.match(path):
        return "proto"
    top = path.split("/")[0]
    return top if (ROOT / path).exists() else None


def main():
    errors = []
    count = 0
    for top, allowed in ALLOWED.items():
        for file in sorted((ROOT / top).rglob("*")):
            if file.suffix not in {".h", ".cc", ".cu", ".cuh", ".inc"}:
                continue
            count += 1
            for number, line in enumerate(file.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                where = f"{file.relative_to(ROOT)}:{number}"
                folder = folder_of(match[2])
                if folder is not None and folder not in allowed:
                    errors.append(f"{where}: {top}/ must not include {match[2]}")
                forbidden = FORBIDDEN_EXTERNAL.get(top)
                if forbidden and re.match(forbidden, match[2]) and folder is None:
                    errors.append(f"{where}: {top}/ must not use {match[2]}")
                if match[1] == '"' and "/" not in match[2]:
                    errors.append(f"{where}: include by the path from the root, not {match[2]}")
    print("\n".join(errors) if errors else f"dependency direction: {count} files, no violation")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
