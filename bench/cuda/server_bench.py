#!/usr/bin/env python3
"""The whole server against the bare engine step, on one machine: gRPC clients, dummy weights.

  server_bench.py --bin build/release/bin [--model 1.3b] [--streams 1,64,256] [--phases streams,prompts]
                  [--server-flags "--quantization fp8"] [--bench-flags "fp8=1"] [--json FILE]

For each number of closed-loop streams: the step time of cuda_step_bench at that batch, then the server's tokens
per second while that many streams run, their ratio, and the gaps between tokens as the client saw them. Then the
largest number of streams again while prompts of --prompt-tokens tokens arrive, of a later priority: first as fast as they
are taken (saturation), then as a Poisson process at --load of that rate; gaps of the streams against the bare step.
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

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../load"))
import server_process  # noqa: E402


def bare_steps(args, batches):
    """{batch: seconds of an engine step}"""
    command = [os.path.join(args.bin, "cuda_step_bench"), "model=" + args.model, "prefill=", "steps=1500",  # seconds: a card that runs on is slower than one that begins
               "decode=" + ",".join(str(b) for b in batches), *args.bench_flags.split()]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(out, end="", flush=True)
    return {int(b): float(ms) / 1e3 for b, ms in re.findall(r"decode  batch +(\d+)  step +([\d.]+) ms", out)}


class Load:
    """A running hgrn2-client load."""

    def __init__(self, args, server, name, flags):
        self.json = os.path.join(args.work, name + ".json")
        command = args.client_cpus + [os.path.join(args.bin, "hgrn2-client"), "load", "--target", server.grpc, "--quiet",
                                      "--json", self.json, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        with open(self.json, encoding="utf-8") as f:
            return json.load(f)


def delta(before, after, name):
    """Sum over the name's label sets."""
    return sum(v - before.get(k, 0) for k, v in after.items()
               if k != "time" and (k == name or k.startswith(name + "{")))


def phase_seconds(before, after):
    """{phase: mean seconds per step} of hgrn2_step_seconds."""
    means = {}
    for key in after:
        match = re.match(r'hgrn2_step_seconds_sum\{.*phase="(\w+)"', key)
        if match:
            steps = after[key.replace("_sum{", "_count{")] - before.get(key.replace("_sum{", "_count{"), 0)
            means[match[1]] = (after[key] - before.get(key, 0)) / max(steps, 1)
    return means


def engine_gaps(before, after):
    """Share of gaps between tokens, as the engine sees them, up to each bucket's bound in ms."""
    counts = []
    for key in after:
        match = re.match(r'vllm:inter_token_latency_seconds_bucket\{.*le="([\d.e+-]+)"', key)
        if match and match[1] != "+Inf":
            counts.append((float(match[1]), after[key] - before.get(key, 0)))
    total = max(delta(before, after, "vllm:inter_token_latency_seconds_count"), 1)
    return {bound * 1e3: round(n / total, 4) for bound, n in sorted(counts) if 0.0005 < n / total < 0.9999}


def watch(server, seconds):
    """Tokens per second, steps and threads of the server over the next seconds."""
    threads, before = server.threads(), server.metrics()
    time.sleep(seconds)
    later, after = server.threads(), server.metrics()
    span = after["time"] - before["time"]
    cpu = sorted(((t - threads.get(tid, (n, 0))[1], n, tid) for tid, (n, t) in later.items()), reverse=True)
    return {"tokens_per_s": delta(before, after, "vllm:generation_tokens_total") / span,
            "prompt_tokens_per_s": delta(before, after, "vllm:prompt_tokens_total") / span,
            "mean_batch": delta(before, after, "hgrn2_batch_size_sum") /
                          max(delta(before, after, "hgrn2_batch_size_count"), 1),
            "steps_per_s": delta(before, after, "hgrn2_batch_size_count") / span,
            "phases_ms": {k: round(v * 1e3, 3) for k, v in phase_seconds(before, after).items()},
            "engine_gaps_ms": engine_gaps(before, after),
            "cpu_cores": sum(c for c, _, _ in cpu) / span,
            "busiest_threads": [f"{n} {c / span:.2f}" for c, n, _ in cpu[:8]]}


def show(seen, *more):
    keys = ("mean_batch", "steps_per_s", "phases_ms", "engine_gaps_ms", "cpu_cores", "busiest_threads", *more)
    print("    ", {k: seen[k] for k in keys}, flush=True)


def client_flags(args, streams, output):
    return ["--concurrency", str(streams), "--duration", "600", "--drain", "0", "--prompt-tokens", "16", "--output-tokens",
            output, "--connections", str(min(args.connections, streams)), "--threads", str(min(args.client_threads, streams))]


def run_streams(args, server, streams, bare):
    load = Load(args, server, f"streams{streams}", client_flags(args, streams, "uniform:256:768") + ["--warmup", "2"])
    time.sleep(3)
    seen = watch(server, args.seconds)
    report = load.stop()
    seen.update(streams=streams, bare_tokens_per_s=streams / bare,
                share_of_bare=seen["tokens_per_s"] * bare / streams, bare_step_ms=bare * 1e3)
    seen.update({k: report[k + "_itl_ms"] for k in ("median", "p90", "p95", "p99", "p99.9", "max")})
    seen["tokens_per_message"] = report["hgrn2"]["tokens_per_message"]
    seen["p99_over_step"] = seen["p99"] / seen["bare_step_ms"]
    seen["client_warnings"] = report["hgrn2"]["warnings"]
    print(f"streams {streams:4d}: {seen['tokens_per_s']:9.0f} tok/s, bare {seen['bare_tokens_per_s']:9.0f}: "
          f"{100 * seen['share_of_bare']:.1f} %; gaps p50 {seen['median']:.2f} "
          f"p90 {seen['p90']:.2f} p95 {seen['p95']:.2f} p99 {seen['p99']:.2f} p99.9 {seen['p99.9']:.2f} max {seen['max']:.2f} ms, "
          f"bare step {seen['bare_step_ms']:.2f} ms: p99 {seen['p99_over_step']:.2f} x")
    show(seen, "tokens_per_message", "client_warnings")
    return seen


def run_prompts(args, server, streams, bare):
    """Long prompts beside `streams` streams: saturation, then --load of it."""
    # Behind the streams' own short prompts: those would wait, and fewer streams run.
    prompts = ["--priorities", "10:1", "--prompt-tokens", str(args.prompt_tokens), "--output-tokens", str(args.prompt_output),
               "--connections", "2", "--threads", "2", "--drain", "0", "--duration", "600"]
    results = {}
    rate = args.prompt_rate
    for name in ("saturated", "loaded"):
        flags = ["--concurrency", str(args.extra_slots)] if name == "saturated" else ["--rate", f"{rate:.3f}"]
        if name == "saturated" and args.prompt_rate:
            continue
        long = Load(args, server, name + "-prompts", prompts + flags + ["--warmup", "1"])
        time.sleep(1)
        load = Load(args, server, name, client_flags(args, streams, "uniform:256:768") + ["--warmup", "2"])
        time.sleep(3)
        seen = watch(server, args.seconds)
        report, long_report = load.stop(), long.stop()
        seen["prompts_per_s"] = seen["prompt_tokens_per_s"] / args.prompt_tokens
        seen.update({k: report[k + "_itl_ms"] for k in ("median", "p90", "p99", "max")})
        seen.update(ttft_median=long_report["median_ttft_ms"], ttft_p99=long_report["p99_ttft_ms"],
                    p99_over_step=report["p99_itl_ms"] / (bare * 1e3),
                    p99_over_mean_step=report["p99_itl_ms"] * seen["steps_per_s"] / 1e3)
        rate = rate or args.load * seen["prompts_per_s"]
        print(f"{name:9s}: {seen['prompts_per_s']:.1f} prompts/s ({seen['prompt_tokens_per_s']:.0f} tok/s) beside {streams} "
              f"streams ({seen['tokens_per_s']:.0f} tok/s); gaps p50 {seen['median']:.2f} p90 {seen['p90']:.2f} p99 "
              f"{seen['p99']:.2f} max {seen['max']:.2f} ms: p99 {seen['p99_over_step']:.2f} x the bare step, "
              f"{seen['p99_over_mean_step']:.2f} x the mean step; prompts' TTFT p50 {seen['ttft_median']:.0f} p99 "
              f"{seen['ttft_p99']:.0f} ms")
        show(seen)
        results[name] = seen
        time.sleep(1)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    server_process.add_arguments(parser)
    parser.add_argument("--model", choices=sorted(server_process.SHAPES), default="1.3b")
    parser.add_argument("--streams", default="1,64,256")
    parser.add_argument("--phases", default="streams,prompts")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=2048)
    parser.add_argument("--prompt-output", type=int, default=16)
    parser.add_argument("--prompt-rate", type=float, default=0, help="prompts/s, instead of measuring saturation")
    parser.add_argument("--load", type=float, default=0.7)
    parser.add_argument("--extra-slots", type=int, default=64, help="slots for the long prompts")
    parser.add_argument("--bench-flags", default="")
    parser.add_argument("--json")
    args = parser.parse_args()
    streams = [int(s) for s in args.streams.split(",")]
    phases = args.phases.split(",")
    bare = bare_steps(args, streams)
    results = {"bare_steps": bare, "streams": []}
    with tempfile.TemporaryDirectory() as args.work:
        server_process.write_model(args.work, args.model)
        server = server_process.Server(args, max(streams) + args.extra_slots, os.path.join(args.work, "log"),
                                       "--model", args.work, "--load-format", "dummy", "--seed", "1")
        try:
            if "streams" in phases:
                results["streams"] = [run_streams(args, server, n, bare[n]) for n in streams]
            if "prompts" in phases:
                results.update(run_prompts(args, server, max(streams), bare[max(streams)]))
        finally:
            print("server's exit status", server.stop())
            print("\n".join(line for line in server.output().splitlines() if "rpc method" not in line)[-3000:])
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
