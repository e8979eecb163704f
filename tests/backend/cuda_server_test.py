#!/usr/bin/env python3
"""hgrn2-server on a GPU: too little memory, fewer slots than asked for, a device that fails, two devices.

Skipped (exit status 77), saying so, without a GPU; the two-device part needs two.
  cuda_server_test.py --bin build/release/bin [--fault build/release/lib/libcuda_fault_preload.so]
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

CONFIG = {"model_type": "hgrn2", "hidden_size": 1024, "num_hidden_layers": 8, "expand_ratio": 128, "intermediate_size": 2816,
          "vocab_size": 4096, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}


class Server:
    def __init__(self, args, flags, environment=None):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        command = [f"{args.bin}/hgrn2-server", "--model", args.model, "--load-format", "dummy", "--seed", "1", "--host",
                   "127.0.0.1", "--grpc-port", "0", "--http-port", "0", *flags]
        self.process = subprocess.Popen(command, stderr=self.log, env={**os.environ, **(environment or {})})
        self.grpc = self.http = None
        deadline = time.monotonic() + 60
        while self.http is None and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            self.grpc = self.field("gRPC listening on ")
            self.http = self.field("HTTP listening on ")

    def text(self):
        with open(self.log.name, encoding="utf-8") as f:
            return f.read()

    def field(self, marker):
        found = re.search(re.escape(marker) + r"(\S+)", self.text())
        return found and found[1]

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait(self):
        return self.process.wait(timeout=60)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait()


def expect(condition, what, log=""):
    print(("ok   " if condition else "FAIL ") + what, flush=True)
    if not condition:
        print(log[-3000:])
        sys.exit(1)


def load(args, server, report, *flags):
    command = [f"{args.bin}/hgrn2-client", "load", "--target", server.grpc, "--quiet", "--json", report, "--prompt-tokens", "16",
               *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def too_little_memory(args, total):
    # A share below what the device's own context and the reserve take.
    server = Server(args, ["--device", "cuda:0", "--gpu-memory-utilization", "0.05", "--max-num-batched-tokens", "262144"])
    code, log = server.wait(), server.text()
    expect(code == 1, f"out of memory at start: exit status {code}", log)
    numbers = re.search(r"([\d.]+) GiB x 0.05 \(--gpu-memory-utilization\) - ([\d.]+) GiB in use - ([\d.]+) GiB for the driver = "
                        r"(-?[\d.]+) GiB, but weights of ([\d.]+) GiB \+ a workspace of ([\d.]+) GiB .* = ([\d.]+) GiB", log)
    expect(numbers is not None, "the error has the arithmetic", log)
    all_of, used, reserve, budget, weights, workspace, wanted = map(float, numbers.groups())
    expect(abs(all_of - total) < 0.01 * total, f"the device has {all_of} GiB of {total:.1f}")  # the driver keeps some
    expect(abs(all_of * 0.05 - used - reserve - budget) < 0.02 and weights + workspace <= wanted + 0.01 and wanted > budget,
           "the arithmetic is right: " + numbers[0])


def fewer_slots(args, total):
    share = min(0.9, max(0.05, 6.0 / total))
    server = Server(args, ["--device", "cuda:0", "--gpu-memory-utilization", f"{share:.3f}", "--max-num-seqs", "60000",
                           "--max-num-batched-tokens", "2048"])
    log = server.text()
    expect(server.grpc is not None, "starts with less memory than the slots need", log)
    slots = int(re.search(r"bytes per sequence x (\d+) slots", log)[1])
    expect(0 < slots < 60000 and f"only {slots} of 60000 slots fit" in log, f"says that {slots} of 60000 slots fit", log)
    used = float(subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"],
                                capture_output=True, text=True, check=True).stdout) / 1024
    expect(used <= share * total + 0.3, f"takes {used:.2f} GiB; allowed {share * total:.2f} GiB")
    expect(server.stop() == 0, "stops in order", server.text())


def failing_device(args):
    fault = os.path.join(args.work, "fault")
    server = Server(args, ["--device", "cuda:0", "--max-num-seqs", "16", "--shutdown-timeout", "20"],
                    {"LD_PRELOAD": args.fault, "HGRN2_FAULT_FILE": fault})
    expect(server.grpc is not None and server.get("/ready")[0] == 200, "ready before the fault", server.text())
    report = os.path.join(args.work, "fault.json")
    client = load(args, server, report, "--concurrency", "8", "--requests", "8", "--output-tokens", "1000000", "--duration", "60")
    time.sleep(2)
    expect(client.poll() is None and server.process.poll() is None, "eight streams run", server.text())
    open(fault, "w", encoding="utf-8").close()
    states = set()
    while server.process.poll() is None:
        states.add(server.get("/ready")[0])
        time.sleep(0.02)
    code, log = server.wait(), server.text()
    client.wait(60)
    expect("fault injected" in log, "a kernel trapped in the server's context", log)
    expect(code == 1, f"exit status {code}", log)
    expect("the device failed" in log, "the log says that the device failed", log)
    expect(states <= {200, 503, 0} and 503 in states or states <= {200, 0}, f"/ready answered {sorted(states)}")
    with open(report, encoding="utf-8") as f:
        errors = json.load(f)["hgrn2"]["errors"]
    print("     errors of the streams:", errors)
    expect(sum(e["count"] for e in errors.values()) == 8 and set(errors) <= {"INTERNAL"}, "every stream got a status")


def two_devices(args):
    requests = 12800

    def run(devices):
        server = Server(args, ["--device", devices, "--max-num-seqs", "64"])
        expect(server.grpc is not None, f"starts on {devices}", server.text())
        report = os.path.join(args.work, "two.json")
        client = load(args, server, report, "--concurrency", "128", "--requests", str(requests), "--output-tokens", "uniform:64:256",
                      "--connections", "8", "--threads", "4")
        used = [0.0, 0.0]
        while client.poll() is None:  # nvidia-smi shows the last part of a second
            now = subprocess.run(["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"],
                                 capture_output=True, text=True, check=True).stdout.split()
            used = [max(a, float(b)) for a, b in zip(used, now)]
            time.sleep(0.2)
        expect(server.stop() == 0, "stops in order", server.text())
        with open(report, encoding="utf-8") as f:
            result = json.load(f)
        expect(result["completed"] == requests and result["failed"] == 0,
               f"{devices}: all of {requests} requests completed")
        print(f"     {devices}: {result['output_throughput']:.0f} tok/s, utilisation {used}")
        return result["output_throughput"], used
    one, _ = run("cuda:0")
    both, used = run("cuda:0,cuda:1")
    expect(min(used) > 0, f"both devices work: {used} %")
    expect(both > 1.2 * one, f"two devices give {both / one:.2f} times one device's throughput")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--fault", help="libcuda_fault_preload.so")
    args = parser.parse_args()
    try:
        memory = subprocess.run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
                                capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        memory = []
    if not memory:
        print("skipped: no NVIDIA GPU here")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as args.work:
        args.model = os.path.join(args.work, "model")
        os.mkdir(args.model)
        with open(os.path.join(args.model, "config.json"), "w", encoding="utf-8") as f:
            json.dump(CONFIG, f)
        total = float(memory[0]) / 1024
        too_little_memory(args, total)
        fewer_slots(args, total)
        if args.fault:
            failing_device(args)
        if len(memory) > 1:
            two_devices(args)
        else:
            print("not tested: two devices (this machine has one)")


if __name__ == "__main__":
    main()
