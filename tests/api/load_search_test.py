#!/usr/bin/env python3
"""hgrn2-client load on the real server: sweeps, the search for the highest rate, Ctrl-C, over gRPC and over HTTP."""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import harness

harness.limit(280)
SHORT = ["--prompt-tokens", "8", "--output-tokens", "4", "--quiet", "--seed", "3"]


def load(*arguments, expect=0):
    """The JSON result."""
    out = work / "run.json"
    out.unlink(missing_ok=True)
    done = subprocess.run([sys.argv[2], "load", *SHORT, "--json", str(out), *arguments], capture_output=True, text=True,
                          timeout=200)
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return json.loads(out.read_text())


def test_both_transports_do_the_same_work():
    runs = [load("--target", target, "--requests", "20", "--concurrency", "4") for target in (server.grpc, url)]
    for run, backend in zip(runs, ("hgrn2-grpc", "openai")):
        assert run["backend"] == backend and run["model_id"] == harness.MODEL_NAME
        assert run["completed"] == 20 and run["failed"] == 0, run["hgrn2"]["errors"]
        assert run["total_output_tokens"] == 80 and run["total_input_tokens"] == 160
        assert 0 < run["p50_ttft_ms"] <= run["p99_ttft_ms"] <= run["max_ttft_ms"] <= run["max_e2el_ms"]


def test_sweep():
    for target in (server.grpc, url):
        html = work / "sweep.html"
        result = load("--target", target, "--sweep-concurrency", "1,4", "--duration", "1", "--html", str(html),
                      "--metrics-url", f"{url}/metrics")
        assert [r["hgrn2"]["sweep_value"] for r in result["runs"]] == [1, 4]
        for run in result["runs"]:
            assert run["completed"] > 0 and run["failed"] == 0
            tokens = run["hgrn2"]["server_metrics"]["delta"]["vllm:generation_tokens_total"]
            assert tokens >= run["total_output_tokens"] > 0
        assert str(result["runs"][1]["completed"]) in html.read_text()
    rates = load("--target", server.grpc, "--sweep", "4:8:2", "--duration", "2", "--arrival", "constant")["runs"]
    for run, rate in zip(rates, (4, 8)):
        assert run["request_rate"] == rate and run["completed"] == 2 * rate - 1, (run["completed"], rate)


def test_find_max():
    result = load("--target", server.grpc, "--find-max", "--rate", "16", "--goodput", "ttft:1000", "--duration", "1",
                  "--precision", "0.5", "--drain", "3")
    rate = result["find_max"]["rate"]
    share = result["find_max"]["good_share"]
    good = [r["hgrn2"]["sweep_value"] for r in result["runs"] if r["hgrn2"]["good_share"] >= share]
    assert rate in good and len(result["runs"]) >= 2, (rate, good)
    assert max(r["hgrn2"]["sweep_value"] for r in result["runs"]) > rate  # it also found a rate that is too high
    print(f"  {rate:.0f} requests/s, {len(result['runs'])} runs")


def test_sweep_of_the_whole_server():
    """bench/load/server_sweep.py starts a server of its own and has all three parts, within its limit."""
    out = work / "sweep.json"
    sweep = harness.ROOT / "bench/load/server_sweep.py"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, str(sweep), "--bin", str(pathlib.Path(sys.argv[1]).parent), "--shape", "tiny", "--device", "cpu",
                           "--closed", "1,4", "--rate", "8", "--prompt-tokens", "8", "--output-tokens", "uniform:4:8", "--goodput", "ttft:2000",
                           "--warmup", "0", "--drain", "1", "--limit", "60", "--json", str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert time.monotonic() - begin < 60
    result = json.loads(out.read_text())
    assert {run["hgrn2"]["part"] for run in result["runs"]} == {"closed", "open", "find-max"}
    assert result["find_max"]["rate"] > 0
    assert done.stdout.count("ttft p50") == 3 and "find-max: server " in done.stdout, done.stdout


def test_interrupt_keeps_what_was_measured():
    for target in (server.grpc, url):
        out = work / "interrupted.json"
        out.unlink(missing_ok=True)
        process = subprocess.Popen([sys.argv[2], "load", *SHORT, "--target", target, "--sweep-concurrency", "2,3,4",
                                    "--duration", "3", "--json", str(out)], stdout=subprocess.PIPE, text=True)
        while "ttft" not in process.stdout.readline():  # the table's heading
            pass
        process.stdout.readline()  # the first run
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        runs = json.loads(out.read_text())["runs"]
        assert len(runs) == 2 and all(r["completed"] > 0 for r in runs)
        assert not runs[0]["hgrn2"]["stopped"] and runs[1]["hgrn2"]["stopped"]


with tempfile.TemporaryDirectory() as directory, harness.Server(sys.argv[1], "--max-num-seqs", "16") as server:
    work = pathlib.Path(directory)
    url = f"http://{server.http}"
    harness.run_tests(globals())
