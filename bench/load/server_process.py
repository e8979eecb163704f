"""A running hgrn2-server of a folder of binaries, for the benchmarks of the whole server."""
import json
import os
import re
import signal
import subprocess
import time
import urllib.request

# layers, width, inner width, vocabulary. "tiny" tries a benchmark out on a CPU.
SHAPES = {"1.3b": (24, 2048, 5632, 32000), "2.9b": (32, 2560, 6912, 32000), "tiny": (2, 256, 512, 4096)}


def write_model(folder, name):
    """A checkpoint of a shape without weights, for --load-format dummy."""
    layers, d, m, vocabulary = SHAPES[name]
    config = {"model_type": "hgrn2", "hidden_size": d, "num_hidden_layers": layers, "expand_ratio": 128,
              "intermediate_size": m, "vocab_size": vocabulary, "torch_dtype": "bfloat16",
              "bos_token_id": 1, "eos_token_id": 2}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)


def add_arguments(parser):
    """What Server reads, and the client's part of the machine."""
    parser.add_argument("--bin", required=True, help="folder of hgrn2-server and hgrn2-client")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--client-threads", type=int, default=4)
    parser.add_argument("--server-cpus", type=lambda s: ["taskset", "-c", s], default=[])
    parser.add_argument("--client-cpus", type=lambda s: ["taskset", "-c", s], default=[])
    parser.add_argument("--server-flags", default="")


class Server:
    """REQUIRES stop() at the end."""

    def __init__(self, args, slots, log, *flags):
        self.log = log
        command = [os.path.join(args.bin, "hgrn2-server"), "--device", args.device, "--max-num-seqs", str(slots),
                   "--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0", "--log-level", "info", *flags]
        with open(log, "w", encoding="utf-8") as f:
            self.process = subprocess.Popen(args.server_cpus + command + args.server_flags.split(), stderr=f)
        begin = time.time()
        self.grpc = self.http = None
        while self.http is None:
            time.sleep(0.05)
            if self.process.poll() is not None:
                raise RuntimeError(self.output())
            found = dict(re.findall(r"(gRPC|HTTP) listening on (\S+)", self.output()))
            if len(found) == 2:
                self.grpc, self.http = found["gRPC"], found["HTTP"]
            elif time.time() - begin > 180:
                self.stop()
                raise RuntimeError("not ready within 180 s:\n" + self.output())
        print(f"server ready after {time.time() - begin:.1f} s", flush=True)

    def output(self):
        with open(self.log, encoding="utf-8") as f:
            return f.read()

    def metrics(self):
        """{metric with labels: value}"""
        text = urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10).read().decode()
        values = {"time": time.monotonic()}
        for line in text.splitlines():
            if not line.startswith("#") and " " in line:
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def _cpu_seconds(self, folder):
        """(name, CPU seconds) of a process or thread."""
        with open(f"{folder}/stat", encoding="utf-8") as f:
            stat = f.read()
        fields = stat[stat.rindex(")") + 2:].split()
        return (stat[stat.index("(") + 1:stat.rindex(")")],
                (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))

    def cpu_seconds(self):
        return self._cpu_seconds(f"/proc/{self.process.pid}")[1]

    def threads(self):
        """{thread id: (name, CPU seconds)}"""
        folder = f"/proc/{self.process.pid}/task"
        out = {}
        for tid in os.listdir(folder):
            try:
                out[tid] = self._cpu_seconds(f"{folder}/{tid}")
            except OSError:  # it ended
                continue
        return out

    def stop(self):
        """The exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
