#!/usr/bin/env python3
"""A sweep of the whole server, client and server on one machine: closed loops, then open loops (Poisson) judged by a
goodput, then the highest rate that keeps it.

  server_sweep.py --bin build/release/bin (--model DIR | --shape 1.3b) [--server-flags "--quantization fp8"] [--json FILE]

bench/load/sweep_cpu.sh and bench/cuda/server_sweep.sh call it for a CPU and for a GPU. --bin may be the bin folder of
what deploy/bundle.sh makes, which needs nothing installed. The table is hgrn2-client's; the JSON is one
that `hgrn2-client report` reads, of all three parts.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import server_process

OPEN_POINTS = 8  # doublings until saturation, and
SEARCH_POINTS = 6  # doublings and bisections, for the time of a point: usual numbers
STOP_S = 10  # kept for ending the last run and the server
LONG = {"prompt_tokens": "512", "output_tokens": "256"}


def split_processors(args):
    """Server and client on halves of what this process may use; on few, together."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) >= 8:
        half = len(cpus) // 2
        for name, part in (("server_cpus", cpus[:half]), ("client_cpus", cpus[half:])):
            if not getattr(args, name):
                setattr(args, name, ["taskset", "-c", ",".join(map(str, part))])


class Sweep:
    """Its parts end by themselves at `deadline` (time.monotonic)."""

    def __init__(self, args, server, work, deadline):
        self.args, self.server, self.work, self.deadline = args, server, work, deadline
        # A limit shortens the points, so that none of the parts is left out.
        points = len(args.closed.split(",")) + OPEN_POINTS + SEARCH_POINTS
        each = (deadline - time.monotonic() - 4 * args.drain) / points - args.warmup - 1
        self.seconds = max(1.5, min(args.seconds, each))
        self.result = {"runs": []}
        self.notes = []

    def run(self, part, *flags):
        """Runs hgrn2-client load, which prints its table. The part's runs."""
        args = self.args
        path = os.path.join(self.work, part + ".json")
        command = args.client_cpus + [
            os.path.join(args.bin, "hgrn2-client"), "load", "--target", self.server.grpc, "--quiet", "--json", path,
            "--metrics-url", f"http://{self.server.http}/metrics", "--seed", "1", "--warmup", f"{args.warmup:g}",
            "--duration", f"{self.seconds:.3g}", "--drain", f"{args.drain:g}", "--prompt-tokens", args.prompt_tokens,
            "--output-tokens", args.output_tokens, "--connections", str(args.connections),
            "--threads", str(args.client_threads), *flags]
        if args.html:
            command += ["--html", os.path.join(args.html, part + ".html")]
        begin, cpu = time.monotonic(), self.server.cpu_seconds()
        process = subprocess.Popen(command)
        try:
            process.wait(max(self.deadline - begin, 0.1))
        except subprocess.TimeoutExpired:
            self.notes.append(f"{part}: stopped at the limit of {args.limit:g} s")
            process.send_signal(signal.SIGINT)
            process.wait(STOP_S)
        finally:
            if process.poll() is None:
                process.kill()
        span = time.monotonic() - begin
        if not os.path.exists(path):
            self.notes.append(f"{part}: no result, exit status {process.returncode}")
            return []
        with open(path, encoding="utf-8") as f:
            report = json.load(f)
        runs = report.get("runs", [report])
        self.note(part, runs, (self.server.cpu_seconds() - cpu) / span)
        for run in runs:
            run["hgrn2"]["part"] = part
        self.result["runs"] += runs
        if "find_max" in report:
            self.result["find_max"] = report["find_max"]
        return runs

    def note(self, part, runs, server_cores):
        """Whether the client may have been what limited, by its own word."""
        client = [run["hgrn2"]["client"] for run in runs]
        self.notes.append(
            f"{part}: server {server_cores:.1f} cores; client at most {max(c['cpu_share'] for c in client):.1f}, its busiest "
            f"thread {max(c['poller_cpu_share'] for c in client):.2f}, left late (p99) by at most "
            f"{max(c['send_lag_p99_ms'] for c in client):.1f} ms")
        for run in runs:
            self.notes += [f"  {run['hgrn2']['sweep_kind']} {run['hgrn2']['sweep_value']:g}: {warning}"
                           for warning in run["hgrn2"]["warnings"]]

    def run_all(self):
        args = self.args
        self.run("closed", "--sweep-concurrency", args.closed)
        runs = self.run("open", "--sweep", args.open, "--rate", f"{args.rate:g}", "--goodput", args.goodput)
        good = [run["hgrn2"]["sweep_value"] for run in runs if run["hgrn2"].get("good_share", 0) >= 0.99]
        self.run("find-max", "--find-max", "--rate", f"{max(good, default=args.rate):g}", "--precision", "0.1",
                 "--goodput", args.goodput)
        print("\n".join(self.notes), flush=True)
        self.result["sweep"] = {key: getattr(args, key) for key in (
            "shape", "model", "device", "slots", "server_flags", "server_cpus", "client_cpus", "connections", "client_threads",
            "prompt_tokens", "output_tokens", "goodput", "warmup", "drain")} | {"seconds": self.seconds, "notes": self.notes}
        return self.result


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    server_process.add_arguments(parser)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="checkpoint")
    model.add_argument("--shape", choices=sorted(server_process.SHAPES), help="random weights of this shape")
    parser.add_argument("--closed", default="1,2,4,8,16,32,64", help="streams of the closed loops")
    parser.add_argument("--open", default="auto", help="rates of the open loops, requests/s: R1,R2,... or FROM:TO:COUNT; auto: "
                        "--rate, doubled until throughput stops growing")
    parser.add_argument("--rate", type=float, default=2)
    parser.add_argument("--goodput", default="ttft:1000,itl:250")
    parser.add_argument("--prompt-tokens", default="uniform:32:256")
    parser.add_argument("--output-tokens", default="uniform:16:128")
    parser.add_argument("--long", action="store_const", const=LONG, default={}, help="prompts of 512 tokens, answers of 256")
    parser.add_argument("--slots", type=int, default=0, help="default: the most streams of --closed")
    parser.add_argument("--seconds", type=float, default=8, help="of each point, or what --limit allows")
    parser.add_argument("--warmup", type=float, default=2)
    parser.add_argument("--drain", type=float, default=10)
    parser.add_argument("--limit", type=float, default=600, help="seconds for everything")
    parser.add_argument("--pin", action="store_true", help="8 processors or more: server and client on halves of them")
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--html", help="folder for a report of each part")
    args = parser.parse_args()
    vars(args).update(args.long)
    args.slots = args.slots or max(int(n) for n in args.closed.split(","))
    if args.pin:
        split_processors(args)
    return args


def main():
    deadline = time.monotonic() - STOP_S
    args = parse_arguments()
    deadline += args.limit
    with tempfile.TemporaryDirectory() as work:
        flags = ["--model", args.model]
        if args.shape:
            server_process.write_model(work, args.shape)
            flags = ["--model", work, "--load-format", "dummy", "--seed", "1"]
        server = server_process.Server(args, args.slots, os.path.join(work, "log"), *flags)
        try:
            sweep = Sweep(args, server, work, deadline)
            print(f"{args.shape or args.model} on {args.device}, {' '.join([str(args.slots), 'slots', args.server_flags]).strip()}; "
                  f"prompts {args.prompt_tokens}, answers {args.output_tokens}; {sweep.seconds:.3g} s a point", flush=True)
            result = sweep.run_all()
        finally:
            status = server.stop()
            if status != 0:
                print(f"server's exit status {status}\n{server.output()[-3000:]}", file=sys.stderr)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(result, f)
    return 0 if status == 0 and "find_max" in result else 1


if __name__ == "__main__":
    sys.exit(main())
