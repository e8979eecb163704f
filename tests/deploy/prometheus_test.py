#!/usr/bin/env python3
"""A real Prometheus scrapes the real server under load: every query of the dashboard and every recording rule
returns data, and no alert query is wrong about a healthy server.

prometheus_test.py --server BINARY. Skipped without Debian's prometheus package.
"""
import argparse
import asyncio
import json
import math
import pathlib
import shutil
import subprocess
import sys
import unittest
import urllib.parse

import harness

OPTIONS = argparse.Namespace(server="")
RULES = harness.ROOT / "helm/hgrn2-server/files/rules.yaml"
DASHBOARD = harness.ROOT / "helm/hgrn2-server/files/dashboard.json"
WINDOW = "10s"
# The load ends requests in every way that a dashboard shows; a slow machine gets more time.
LOAD_SECONDS = 12
LIMIT_SECONDS = 60


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def panel_queries():
    """(row, panel, query) with Grafana's variables replaced as Grafana would."""
    row = ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", WINDOW)
            for name in ("job", "instance", "model"):
                query = query.replace(f"${name}", ".*")
            assert "$" not in query, query
            yield row, panel["title"], query


class Files(unittest.TestCase):

    def test_promtool_accepts_the_rules(self):
        result = run("promtool", "check", "rules", str(RULES))
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)
        self.assertIn("23 rules found", result.stdout)

    def test_alerts_fire_when_they_should(self):
        result = run("promtool", "test", "rules", str(harness.ROOT / "deploy/prometheus/rules.test.yaml"))
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)

    def test_every_alert_has_a_test_that_fires_and_one_that_does_not(self):
        import yaml
        alerts = {r["alert"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"] if "alert" in r}
        fires, silent = set(), set()
        for test in yaml.safe_load((harness.ROOT / "deploy/prometheus/rules.test.yaml").read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                (fires if case.get("exp_alerts") else silent).add(case["alertname"])
        self.assertEqual(alerts - fires, set())
        self.assertEqual(alerts - silent, set())

    def test_configuration(self):
        result = run("promtool", "check", "config", "--syntax-only", str(harness.ROOT / "deploy/prometheus/prometheus.yaml"))
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)

    def test_compose_mounts_exist_and_settings_are_the_images(self):
        import yaml
        folder = harness.ROOT / "deploy"
        services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
        for name in ("prometheus", "grafana"):
            for volume in services[name]["volumes"]:
                self.assertTrue((folder / volume.split(":")[0]).exists(), volume)
        target = services["server"]["build"]["target"]
        self.assertIn(f" AS {target}\n", (harness.ROOT / "Dockerfile").read_text())
        scrape = yaml.safe_load((folder / "prometheus/prometheus.yaml").read_text())["scrape_configs"][0]
        self.assertEqual(scrape["static_configs"][0]["targets"], ["server:8000"])

    def test_dashboard_is_what_its_script_writes(self):
        result = run(sys.executable, str(harness.ROOT / "deploy/grafana/make_dashboard.py"), "--check")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_panels_explain_themselves(self):
        panels = json.loads(DASHBOARD.read_text())["panels"]
        self.assertGreater(len([p for p in panels if p["type"] == "row"]), 5)
        self.assertEqual(len({p["id"] for p in panels}), len(panels))
        for panel in panels:
            if panel["type"] == "row":
                self.assertTrue(panel["title"].endswith("?"), "a row is a question")
            else:
                self.assertTrue(panel["description"])


class Load:
    """Calls of every kind the metrics tell apart."""

    def __init__(self, target, protocol):
        import grpc
        self.grpc, (self.m, stubs) = grpc, protocol
        self.channel = grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self.stub = stubs.InferenceStub(self.channel)

    def request(self, **sampling):
        m = self.m
        return m.GenerateRequest(prompts=[m.Prompt(text="Once upon a time")],
                                 sampling=m.SamplingParams(**{"max_tokens": 8, "ignore_eos": True, **sampling}))

    async def forever(self, seconds):
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await asyncio.gather(self.plain(), self.plain(), self.choices(), self.out_of_time(), self.dropped(), self.wrong())
        await self.channel.close()

    async def plain(self):
        async for _ in self.stub.Generate(self.request()):
            pass

    async def choices(self):
        # More branches than slots: those that find none start from a copy of the state in host memory.
        await self.stub.Complete(self.request(n=80, max_tokens=2))

    async def out_of_time(self):
        try:
            await self.stub.Complete(self.request(max_tokens=100000), timeout=0.3)
        except self.grpc.aio.AioRpcError as error:
            assert error.code() in (self.grpc.StatusCode.DEADLINE_EXCEEDED, self.grpc.StatusCode.CANCELLED), error

    async def dropped(self):
        stream = self.stub.Generate(self.request(max_tokens=100000))
        async for _ in stream:
            break
        stream.cancel()

    async def wrong(self):
        try:
            await self.stub.Complete(self.request(temperature=-1))
        except self.grpc.aio.AioRpcError as error:
            assert error.code() == self.grpc.StatusCode.INVALID_ARGUMENT, error


class RealPrometheus(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        directory = harness.temporary_directory()
        cls.addClassCleanup(directory.cleanup)
        path = pathlib.Path(directory.name)
        ports = harness.free_ports(3)
        replica = harness.Replica(OPTIONS.server, path, "server", ports[0], ports[1]).start()
        cls.addClassCleanup(lambda: replica.process.stop())
        (path / "rules.yaml").write_text(RULES.read_text().replace("interval: 30s", "interval: 1s").replace("[5m]", f"[{WINDOW}]"))
        (path / "prometheus.yaml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "hgrn2", "static_configs": [{"targets": [f"127.0.0.1:{ports[1]}"]}]}]}))
        cls.url = f"http://127.0.0.1:{ports[2]}"
        prometheus = harness.Process(
            ["prometheus", f"--config.file={path / 'prometheus.yaml'}", f"--storage.tsdb.path={path / 'data'}",
             f"--web.listen-address=127.0.0.1:{ports[2]}"], path / "prometheus.log")
        cls.addClassCleanup(lambda: prometheus.stop())
        replica.wait_ready()
        harness.wait_for("prometheus", lambda: harness.get(cls.url + "/-/ready")[0] == 200)
        protocol = harness.load_protocol(directory.name)

        async def drive():
            await Load(f"127.0.0.1:{ports[0]}", protocol).forever(LOAD_SECONDS)
        asyncio.run(drive())

    def query(self, text):
        """Values of an instant query, without NaN."""
        status, body = harness.get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': text})}")
        answer = json.loads(body)
        self.assertEqual((status, answer["status"]), (200, "success"), f"{text}: {body}")
        values = [float(series["value"][1]) for series in answer["data"]["result"]]
        return [v for v in values if not math.isnan(v)]

    def has_data(self, text):
        """Whether the query gave data at some time of the run: a range over it, as a panel draws."""
        return bool(self.query(f"max_over_time(({text})[{LIMIT_SECONDS}s:1s])"))

    def test_every_panel_query_returns_data(self):
        queries = list(panel_queries())
        self.assertGreater(len(queries), 40)
        empty = [f"{row} / {panel}: {query}" for row, panel, query in queries if not self.has_data(query)]
        print(f"{len(queries)} panel queries, {len(empty)} without data")
        self.assertEqual(empty, [])

    def test_every_recording_rule_has_data(self):
        import yaml
        names = [r["record"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"] if "record" in r]
        self.assertGreater(len(names), 5)
        self.assertEqual([n for n in names if not self.has_data(n)], [])

    def test_rules_evaluate_without_errors(self):
        groups = json.loads(harness.get(f"{self.url}/api/v1/rules")[1])["data"]["groups"]
        rules = [r for g in groups for r in g["rules"]]
        self.assertEqual(len(rules), 23)
        self.assertEqual([(r["name"], r["lastError"]) for r in rules if r.get("lastError")], [])
        self.assertEqual({r["health"] for r in rules}, {"ok"})

    def test_the_metrics_that_rules_name_exist(self):
        """An alert on a misspelt name would be silent for ever."""
        names = json.loads(harness.get(f"{self.url}/api/v1/label/__name__/values")[1])["data"]
        for group in json.loads(harness.get(f"{self.url}/api/v1/rules")[1])["data"]["groups"]:
            for rule in group["rules"]:
                for name in self.metric_names(rule["query"]):
                    self.assertIn(name, names, rule["name"])

    @staticmethod
    def metric_names(query):
        import re
        return set(re.findall(r"\b(?:hgrn2_|hgrn2:|vllm:)\w+(?::\w+)*", query))

    def test_the_load_moved_what_it_meant_to(self):
        for query in ('hgrn2_deadline_misses_total', 'hgrn2_requests_cancelled_total', 'hgrn2_snapshot_operations_total{result="ok"}',
                      'hgrn2_grpc_requests_total{code="OK"}', 'hgrn2_grpc_requests_total{code="INVALID_ARGUMENT"}'):
            self.assertGreater(sum(self.query(query)), 0, query)
        self.assertEqual(self.query('ALERTS{alertname=~"Hgrn2(ServiceDown|ReplicaDown|EngineStalled|Restarting|Faults)",alertstate="firing"}'), [])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="hgrn2-server binary")
    _, rest = parser.parse_known_args(namespace=OPTIONS)
    harness.limit(270)
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            harness.skip(f"{program} is not installed (apt-get install prometheus)")
    sys.exit(0 if unittest.main(argv=[sys.argv[0], *rest], exit=False).result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
