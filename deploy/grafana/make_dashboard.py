#!/usr/bin/env python3
"""Writes the Grafana dashboard: one row per question that an operator asks.

  deploy/grafana/make_dashboard.py            writes helm/hgrn2-server/files/dashboard.json
  deploy/grafana/make_dashboard.py --check    exit status 1 if that file is not what this script writes
"""
import json
import pathlib
import sys

OUTPUT = pathlib.Path(__file__).resolve().parents[2] / "helm/hgrn2-server/files/dashboard.json"
SELECT = 'job=~"$job",instance=~"$instance",model_name=~"$model"'
RATE = "$__rate_interval"


def rate(metric, more="", by=""):
    """Per-second rate of a counter, summed over replicas."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{{{SELECT}{more}}}[{RATE}]))"


def quantile(q, metric, more="", by=""):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{SELECT}{more}}}[{RATE}])))"


def quantiles(metric):
    return [(quantile(q, metric), f"p{int(q * 100)}") for q in (0.5, 0.95, 0.99)]


def gauge(metric, more="", by="", fold="sum"):
    grouped = f"{fold} by ({by}) " if by else fold
    return f"{grouped}({metric}{{{SELECT}{more}}})"


# (question, [(panel title, unit, [(query, legend)], kind, what it tells)])
ROWS = [
    ("Is it up, and what runs?", [
        ("Replicas", "short", [(gauge("hgrn2_build_info", fold="count"), "ready to scrape")], "stat",
         "Replicas that answer /metrics."),
        ("What runs", "short", [(gauge("hgrn2_build_info", by="version, device, dtype, state_dtype", fold="count"),
                                 "{{version}} {{device}} {{dtype}}/{{state_dtype}}")], "stat",
         "Replicas by version, device and precision. Two versions: a rollout."),
        ("Engine heartbeat age", "s", [(gauge("hgrn2_engine_heartbeat_age_seconds", by="instance", fold="max"), "{{instance}}")],
         "timeseries", "Time since the engine's loop last turned; it turns while idle too. Liveness fails at --liveness-timeout."),
    ]),
    ("Do users get answers?", [
        ("Calls by status code", "reqps", [(rate("hgrn2_grpc_requests_total", by="code"), "{{code}}")], "timeseries",
         "INTERNAL and UNKNOWN are our faults; UNAVAILABLE is a drain; RESOURCE_EXHAUSTED a full queue."),
        ("Finished requests by reason", "reqps", [(rate("vllm:request_success_total", by="finished_reason"), "{{finished_reason}}")],
         "timeseries", "abort: cancelled, out of time or failed."),
        ("Turned away", "reqps", [(rate("hgrn2_requests_rejected_total", by="reason"), "{{reason}}")], "timeseries",
         "Requests that were not taken. queue_full: too small. draining: a rollout. deadline: could not be met."),
        ("Cancelled, out of time, unread", "reqps",
         [(rate("hgrn2_requests_cancelled_total", by="phase"), "cancelled, {{phase}}"),
          (rate("hgrn2_deadline_misses_total", by="phase"), "deadline, {{phase}}"),
          (rate("hgrn2_slow_reader_cancellations_total"), "slow reader")], "timeseries",
         "By the phase the request was in: work thrown away in decode costs most."),
    ]),
    ("How long do they wait?", [
        ("Time to first token", "s", quantiles("vllm:time_to_first_token_seconds"), "timeseries", "Queue plus prefill."),
        ("Time between tokens", "s", quantiles("vllm:inter_token_latency_seconds"), "timeseries", "What a reader of a stream sees."),
        ("Whole request", "s", quantiles("vllm:e2e_request_latency_seconds"), "timeseries", "Requests that succeeded."),
        ("Where the time goes (p95)", "s",
         [(quantile(0.95, "vllm:request_queue_time_seconds"), "queue"),
          (quantile(0.95, "vllm:request_prefill_time_seconds"), "prefill"),
          (quantile(0.95, "vllm:request_decode_time_seconds"), "decode")], "timeseries",
         "A long queue needs slots or replicas; long prefill is long prompts; long decode is long answers or large batches."),
    ]),
    ("Is there room for more?", [
        ("State slots in use", "percentunit", [(gauge("vllm:kv_cache_usage_perc", by="instance", fold="max"), "{{instance}}")],
         "timeseries", "1: new requests wait."),
        ("Running and waiting", "short", [(gauge("vllm:num_requests_running"), "running"), (gauge("vllm:num_requests_waiting"), "waiting")],
         "timeseries", "Requests with a state slot, and without."),
        ("Memory of state slots", "bytes", [(gauge("hgrn2_state_bytes", by="tier, state"), "{{tier}} {{state}}")], "timeseries",
         "Allocated at start: used plus free is constant."),
        ("Pre-emptions and state copies", "ops",
         [(rate("vllm:num_preemptions_total"), "pre-emptions"),
          (rate("hgrn2_snapshot_operations_total", by="op, result"), "{{op}} {{result}}")], "timeseries",
         "Copies between device and host: pre-emption, several choices per prompt, many continuations of one context."),
    ]),
    ("How much work is it?", [
        ("Tokens", "short", [(rate("vllm:prompt_tokens_total"), "prompt/s"), (rate("vllm:generation_tokens_total"), "generated/s")],
         "timeseries", "Throughput of all selected replicas."),
        ("Generated tokens by replica", "short", [(rate("vllm:generation_tokens_total", by="instance"), "{{instance}}")], "timeseries",
         "Uneven lines: clients stick to one replica (one HTTP/2 connection is one replica)."),
        ("Prompt length", "short", quantiles("vllm:request_prompt_tokens"), "timeseries", "Tokens per request."),
        ("Answer length", "short", quantiles("vllm:request_generation_tokens"), "timeseries", "Tokens per request."),
    ]),
    ("Is the engine efficient?", [
        ("Sequences per step", "short", quantiles("hgrn2_batch_size"), "timeseries", "The batch: throughput comes from here."),
        ("Tokens per step", "short", quantiles("vllm:iteration_tokens_total"), "timeseries", "Decodes plus prefill chunks."),
        ("Step time by phase (p95)", "s", [(quantile(0.95, "hgrn2_step_seconds", by="phase"), "{{phase}}")], "timeseries",
         "device should dominate; plan and apply are host work."),
        ("Steps", "ops", [(f'sum by (instance) (rate(hgrn2_step_seconds_count{{{SELECT},phase="device"}}[{RATE}]))', "{{instance}}")],
         "timeseries", "Steps per second."),
    ]),
    ("Who asks?", [
        ("Calls by method", "reqps", [(rate("hgrn2_grpc_requests_total", by="method"), "{{method}}")], "timeseries", "gRPC."),
        ("HTTP requests", "reqps", [(rate("hgrn2_http_requests_total", by="path, status"), "{{path}} {{status}}")], "timeseries",
         "Probes and scrapes."),
    ]),
]


def panel(number, title, unit, queries, kind, text, x, y, width):
    instant = kind == "stat"
    made = {
        "id": number, "title": title, "type": kind, "description": text,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": width, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "instant": instant, "range": not instant}
                    for i, (expr, legend) in enumerate(queries)],
    }
    if kind == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name", "colorMode": "none"}
    else:
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
        made["fieldConfig"]["defaults"]["custom"] = {"lineWidth": 1, "fillOpacity": 5, "showPoints": "never"}
    return made


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "multi": True, "includeAll": True,
            "allValue": ".*", "sort": 1, "current": {"text": "All", "value": "$__all"}}


def dashboard():
    panels, y, number = [], 0, 1
    for question, row in ROWS:
        panels.append({"id": number, "type": "row", "title": question, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        number, y = number + 1, y + 1
        width = 24 // len(row)
        for i, (title, unit, queries, kind, text) in enumerate(row):
            panels.append(panel(number, title, unit, queries, kind, text, i * width, y, width))
            number += 1
        y += 8
    return {
        "uid": "hgrn2-server", "title": "HGRN2 server", "tags": ["hgrn2"], "schemaVersion": 39, "version": 1, "editable": True,
        "timezone": "browser", "refresh": "15s", "time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            variable("job", "Job", "label_values(hgrn2_build_info, job)"),
            variable("model", "Model", 'label_values(hgrn2_build_info{job=~"$job"}, model_name)'),
            variable("instance", "Replica", 'label_values(hgrn2_build_info{job=~"$job"}, instance)'),
        ]},
        "annotations": {"list": [
            {"name": "Alerts", "enable": True, "iconColor": "red", "datasource": {"type": "prometheus", "uid": "${datasource}"},
             "expr": 'ALERTS{alertname=~"Hgrn2.*",alertstate="firing",job=~"$job"}', "titleFormat": "{{alertname}}"}]},
        "panels": panels,
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        if OUTPUT.read_text() != text:
            sys.exit(f"{OUTPUT} is not what {sys.argv[0]} writes: run it without --check")
        return
    OUTPUT.write_text(text)


if __name__ == "__main__":
    main()
