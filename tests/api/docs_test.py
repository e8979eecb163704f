#!/usr/bin/env python3
"""Runs the examples of docs/api.md, as written, against the real server: docs_test.py SERVER RUN_IN_VENV VENV

A ```bash, ```python or ```javascript block must exit with 0 and, where a comment <!-- prints: REGEX --> stands before
it, print that. The examples name the default ports: the test has them to itself in a network namespace of its own, or
where there is none to be had, puts free ports in their place. Blocks whose tool is missing are reported as skipped.
"""
import fcntl
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

import harness

BLOCK = re.compile(r"(?:<!-- prints: (?P<prints>.*?) -->\n)?```(?P<language>bash|python|javascript)\n(?P<code>.*?)```",
                   re.S)
TOOLS = {"python": "python3", "javascript": "node"}


def enter_namespace():
    """Starts this script again with a loopback device of its own; returns only if that is done or can't be."""
    if os.environ.get("HGRN2_DOCS_NAMESPACE") != "1":
        command = ["unshare", "--map-root-user", "--net"]
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            os.environ["HGRN2_DOCS_NAMESPACE"] = "1"
            os.execvp(command[0], [*command, sys.executable, *sys.argv])
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:  # `ip link set lo up`, without that tool
        flags = struct.unpack("16sh", fcntl.ioctl(s, 0x8913, struct.pack("16sh", b"lo", 0)))[1]  # SIOCGIFFLAGS
        fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
    return True


def python_with_packages():
    """Directory of a python3 that has the clients' packages; None: there is none."""
    done = subprocess.run([*sys.argv[2:4], "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    if done.returncode == 0:
        return os.path.join(done.stdout.strip(), "bin")
    print(done.stderr.strip())
    return None


def missing_tool(language, code, python_path):
    tool = TOOLS.get(language) or code.split()[0]
    uses_packages = language == "python" or "python3 -m grpc_tools" in code
    if uses_packages and python_path is None:
        return "Python packages"
    if "/" not in tool and shutil.which(tool) is None:
        return tool
    if language == "javascript":
        version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
        if int(re.match(r"v(\d+)", version)[1]) < 18:
            return "node 18 (fetch)"
    return None


def run_block(language, code, directory, environment):
    if language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", code]
    else:
        script = pathlib.Path(directory, "example.py" if language == "python" else "example.mjs")
        script.write_text(code)
        command = [TOOLS[language], str(script)]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)


def main():
    alone = os.environ.get("HGRN2_DOCS_NAMESPACE") == "1"
    python_path = os.environ.get("HGRN2_DOCS_PYTHON") or None if alone else python_with_packages()
    os.environ["HGRN2_DOCS_PYTHON"] = python_path or ""
    alone = enter_namespace()
    harness.limit(500)
    text = (harness.ROOT / "docs/api.md").read_text()
    ports = {"grpc_port": 50051, "http_port": 8000} if alone else {}
    failed = skipped = 0
    with tempfile.TemporaryDirectory() as directory, harness.Server(sys.argv[1], **ports) as server:
        for entry in ("proto", "models"):
            os.symlink(harness.ROOT / entry, os.path.join(directory, entry))
        os.makedirs(os.path.join(directory, "build/release"))
        os.symlink(os.path.dirname(os.path.abspath(sys.argv[1])), os.path.join(directory, "build/release/bin"))
        path = os.pathsep.join(p for p in (python_path, os.environ["PATH"]) if p)
        environment = {**os.environ, "PATH": path, "NO_PROXY": "localhost", "no_proxy": "localhost"}
        blocks = list(BLOCK.finditer(text))
        assert len(blocks) >= 10, "docs/api.md has lost its examples"
        for block in blocks:
            line = text[:block.start("code")].count("\n") + 1
            name = f"docs/api.md:{line} ({block['language']})"
            tool = missing_tool(block["language"], block["code"], python_path)
            if tool is not None:
                skipped += 1
                print(f"{name}: skipped, no {tool}")
                continue
            code = block["code"]
            if not alone:
                code = code.replace("localhost:8000", server.http).replace("localhost:50051", server.grpc)
                code = re.sub(r"(hgrn2-client \w+ )(?!--target)", rf"\1--target {server.grpc} ", code)
            done = run_block(block["language"], code, directory, environment)
            good = done.returncode == 0 and (block["prints"] is None or re.search(block["prints"], done.stdout))
            failed += not good
            print(f"{name}: {'ok' if good else 'FAILED'}", flush=True)
            if not good:
                print(f"exit {done.returncode}, expected output {block['prints']}\n{done.stdout}\n{done.stderr}")
    print(f"{len(blocks)} examples, {failed} failed, {skipped} skipped" + ("" if alone else ", on other ports"))
    sys.exit(1 if failed else 0)


main()
