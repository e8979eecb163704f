"""The real server on the embedded model, for tests that come to it with other people's clients."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/hgrn2-gutenberg-12m"
MODEL_NAME = MODEL.name
SKIPPED = 77

# Proxies of the environment must not capture calls to this machine.
for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)


def limit(seconds):
    """Ends the test by itself after that long, so that its server is ended too: ctest's own limit kills only us."""
    def give_up(*_):
        raise TimeoutError(f"the test did not finish within {seconds} s")
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, give_up)
    signal.alarm(seconds)


class Server:
    """Runs while the `with` block does, and must then end in order. Ports: 0, any free one."""

    def __init__(self, binary, *flags, grpc_port=0, http_port=0):
        self.command = [binary, "--model", str(MODEL), "--device", "cpu", "--host", "127.0.0.1", "--grpc-port",
                        str(grpc_port), "--http-port", str(http_port), *flags]

    def __enter__(self):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="hgrn2-server-", suffix=".log")
        self.process = subprocess.Popen(self.command, stderr=self.log, stdout=self.log)
        try:
            self.grpc = self._address("gRPC")
            self.http = self._address("HTTP")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.base_url = f"http://{self.http}/v1"
        return self

    def _address(self, protocol):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.search(rf"{protocol} listening on (\S+)", self.text())
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("the server did not start:\n" + self.text())

    def text(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "killed after 60 s"
        text = self.text()
        self.log.close()
        if kind is not None or status != 0:
            print(text[-4000:], file=sys.stderr)
        assert kind is not None or status == 0, f"the server ended with {status}"


def run_tests(namespace):
    """Calls every test_... function of a module's globals(); prints each one's name and time."""
    for name, test in list(namespace.items()):
        if name.startswith("test_"):
            begin = time.monotonic()
            test()
            print(f"{name}: ok, {time.monotonic() - begin:.1f} s", flush=True)
