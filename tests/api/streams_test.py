#!/usr/bin/env python3
"""1 000 streams of server-sent events at a time on the real server: all end well, none waits for another."""
import json
import subprocess
import sys
import tempfile

import harness

harness.limit(280)
STREAMS = 1000
TOKENS = 16


def test_a_thousand_streams_at_a_time():
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([sys.argv[2], "load", "--target", f"http://{server.http}", "--quiet", "--concurrency",
                        str(STREAMS), "--requests", str(STREAMS), "--prompt-tokens", "4", "--output-tokens",
                        str(TOKENS), "--json", out.name], check=True, stdout=subprocess.DEVNULL)
        run = json.load(open(out.name))
    assert run["completed"] == STREAMS and run["failed"] == 0, run["hgrn2"]["errors"]
    assert run["total_output_tokens"] == STREAMS * TOKENS
    assert run["max_concurrent_requests"] == STREAMS
    # A token at a time: what is counted is a stream, not an answer in one piece.
    assert run["hgrn2"]["tokens_per_message"] < 2, run["hgrn2"]["tokens_per_message"]
    print(f"  {run['output_throughput']:.0f} tokens/s, ttft p99 {run['p99_ttft_ms']:.0f} ms, "
          f"itl p99 {run['p99_itl_ms']:.0f} ms")


with harness.Server(sys.argv[1], "--max-num-seqs", str(STREAMS)) as server:
    harness.run_tests(globals())
