#!/usr/bin/env python3
"""Renders the chart with Helm's own engine for every values file, validates against Kubernetes' schemas and
asserts what makes a rollout lossless and a pod secure.

chart_test.py --server BINARY [unittest arguments]
"""
import argparse
import json
import re
import subprocess
import sys
import unittest

import harness

CHART = harness.ROOT / "helm/hgrn2-server"
VERSIONS = ("1.31", "1.34", "1.37")
VALUES = sorted([*CHART.glob("values*.yaml"), *CHART.glob("ci/*.yaml")])
# Custom resources have no schema in Kubernetes; their fields are asserted below.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "GRPCRoute", "InferencePool"}
OPTIONS = argparse.Namespace(server="")


def render(values):
    """Kind to its rendered objects."""
    import helm_python
    import yaml
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="rel", namespace="space")
    objects = {}
    for name, text in files.items():
        if name.endswith("NOTES.txt"):
            continue
        for thing in yaml.safe_load_all(text):
            if thing:
                objects.setdefault(thing["kind"], []).append(thing)
    return objects


def load(path):
    import yaml
    return yaml.safe_load(path.read_text()) or {}


def server_flags():
    """Flags that the built server knows."""
    text = subprocess.run([OPTIONS.server, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^\s+--([a-z][a-z-]*) ", text, re.M))


def only(things):
    assert len(things) == 1, f"{len(things)} instead of one"
    return things[0]


class EveryValuesFile(unittest.TestCase):
    """Each test runs over all values files."""

    @classmethod
    def setUpClass(cls):
        cls.rendered = {path.name: render(load(path)) for path in VALUES}

    def each(self):
        for name, objects in self.rendered.items():
            with self.subTest(values=name):
                yield objects

    def each_workload(self):
        for objects in self.each():
            workload = only(objects.get("Deployment", []) + objects.get("StatefulSet", []))
            yield objects, workload, workload["spec"]["template"]

    def test_there_are_several(self):
        self.assertGreaterEqual(len(VALUES), 6)
        kinds = set().union(*self.rendered.values())
        for kind in CUSTOM | {"Deployment", "StatefulSet", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget",
                              "NetworkPolicy", "ServiceAccount", "ConfigMap", "Pod"}:
            self.assertIn(kind, kinds, "no values file renders it")

    def test_lint(self):
        import helm_python
        for path in VALUES:
            with self.subTest(values=path.name):
                report = helm_python.lint(CHART, load(path), strict=True, kube_version=f"v{VERSIONS[1]}.0")
                self.assertEqual([m for m in report["messages"] if m["severity"] >= 2], [])

    def test_kubernetes_schemas(self):
        import kubernetes_validate
        validated = 0
        for objects in self.each():
            for kind, things in objects.items():
                for thing in things:
                    for version in VERSIONS:
                        try:
                            kubernetes_validate.validate(thing, version, strict=True)
                            validated += 1
                        except kubernetes_validate.SchemaNotFoundError:
                            self.assertIn(kind, CUSTOM, f"no schema for {kind} in Kubernetes {version}")
        self.assertGreater(validated, 100)

    def test_flags_exist_in_the_server(self):
        known = server_flags()
        self.assertGreater(len(known), 20)
        for _, _, template in self.each_workload():
            arguments = template["spec"]["containers"][0]["args"]
            names = [re.fullmatch(r"--([a-z-]+)=(.+)", a).group(1) for a in arguments]
            self.assertEqual([n for n in names if n not in known], [])
            self.assertEqual(len(names), len(set(names)), "a flag is passed twice")
            self.assertIn("model", names)
            # The server itself parses the values; the model is not there, which it must be the one to say.
            run = subprocess.run([OPTIONS.server, *arguments], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(run.returncode, 0)
            self.assertNotIn("command line", run.stderr)
            self.assertIn("/models" if "/opt/" not in " ".join(arguments) else "/opt/hgrn2", run.stderr)

    def test_grace_period_covers_the_drain(self):
        for _, _, template in self.each_workload():
            container = template["spec"]["containers"][0]
            flags = dict(a[2:].split("=", 1) for a in container["args"])
            before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            self.assertGreater(template["spec"]["terminationGracePeriodSeconds"], before + float(flags["shutdown-timeout"]) + 5)

    def test_probes(self):
        for _, _, template in self.each_workload():
            container = template["spec"]["containers"][0]
            ports = {p["name"]: p["containerPort"] for p in container["ports"]}
            # Kubernetes' gRPC probes speak no TLS.
            tls = any(a.startswith("--grpc-tls-cert=") for a in container["args"])
            for probe in ("startupProbe", "readinessProbe"):
                if tls:
                    self.assertEqual(container[probe]["httpGet"], {"path": "/ready", "port": "http"})
                    self.assertNotIn("grpc", container[probe])
                else:
                    self.assertEqual(container[probe]["grpc"], {"port": ports["grpc"], "service": "hgrn2.v1.Inference"})
            # Liveness by gRPC health would restart a pod that drains.
            self.assertNotIn("grpc", container["livenessProbe"])
            self.assertEqual(container["livenessProbe"]["httpGet"], {"path": "/health", "port": "http"})
            startup = container["startupProbe"]
            self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 300)
            flags = dict(a[2:].split("=", 1) for a in container["args"])
            self.assertEqual(ports, {"grpc": int(flags["grpc-port"]), "http": int(flags["http-port"])})

    def test_security(self):
        for objects, _, template in self.each_workload():
            for pod in [template["spec"]] + [p["spec"] for p in objects.get("Pod", [])]:
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertFalse(pod["enableServiceLinks"])
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertGreater(pod["securityContext"]["runAsUser"], 0)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for field in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertNotIn(field, pod)
                self.assertFalse([v for v in pod.get("volumes", []) if "hostPath" in v])
                for container in pod["containers"] + pod.get("initContainers", []):
                    context = container["securityContext"]
                    self.assertFalse(context["allowPrivilegeEscalation"])
                    self.assertTrue(context["readOnlyRootFilesystem"])
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    self.assertNotIn("privileged", context)
                    self.assertIn("memory", container["resources"]["limits"])
                    self.assertIn("cpu", container["resources"]["requests"])

    def test_selectors_match(self):
        for objects, workload, template in self.each_workload():
            labels = template["metadata"]["labels"]
            hook = only(objects["Pod"])["metadata"]["labels"]

            def selects(selector, some=labels):
                return bool(selector) and selector.items() <= some.items()
            self.assertTrue(selects(workload["spec"]["selector"]["matchLabels"]))
            for service in objects["Service"]:
                self.assertTrue(selects(service["spec"]["selector"]))
                self.assertFalse(selects(service["spec"]["selector"], hook), "the test pod would get traffic")
            for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("InferencePool", "selector")):
                for thing in objects.get(kind, []):
                    self.assertTrue(selects(thing["spec"][path]["matchLabels"]), kind)
            for constraint in template["spec"].get("topologySpreadConstraints", []):
                self.assertTrue(selects(constraint["labelSelector"]["matchLabels"]))
            for monitor in objects.get("ServiceMonitor", []):
                chosen = [s for s in objects["Service"] if selects(monitor["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])
                          and "hgrn2.dev/headless" not in s["metadata"]["labels"]]
                ports = [p["name"] for p in only(chosen)["spec"]["ports"]]
                self.assertIn(monitor["spec"]["endpoints"][0]["port"], ports)
            for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
                for thing in objects.get(kind, []):
                    target = thing["spec"]["scaleTargetRef"]
                    self.assertEqual((target["kind"], target["name"]), (workload["kind"], workload["metadata"]["name"]))
                    self.assertNotIn("replicas", workload["spec"], "Helm and the autoscaler would fight")

    def test_services(self):
        for objects, workload, template in self.each_workload():
            ports = {p["name"] for p in template["spec"]["containers"][0]["ports"]}
            names = {s["metadata"]["name"]: s for s in objects["Service"]}
            for service in objects["Service"]:
                grpc = only([p for p in service["spec"]["ports"] if p["name"] == "grpc"])
                self.assertEqual(grpc["appProtocol"], "kubernetes.io/h2c")
                self.assertLessEqual({p["targetPort"] for p in service["spec"]["ports"]}, ports)
            if workload["kind"] == "StatefulSet":
                self.assertEqual(names[workload["spec"]["serviceName"]]["spec"]["clusterIP"], "None")

    def test_mounts_have_volumes(self):
        for _, _, template in self.each_workload():
            volumes = {v["name"] for v in template["spec"]["volumes"]}
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                self.assertLessEqual({m["name"] for m in container["volumeMounts"]}, volumes)

    def test_custom_resources(self):
        for objects in self.each():
            service = objects["Service"][0]["metadata"]["name"]
            for route in objects.get("GRPCRoute", []):
                backend = only(only(route["spec"]["rules"])["backendRefs"])
                names = [s["metadata"]["name"] for s in objects["Service"] + objects.get("InferencePool", [])]
                self.assertIn(backend["name"], names)
                self.assertTrue(route["spec"]["parentRefs"])
            for pool in objects.get("InferencePool", []):
                self.assertEqual(set(pool["spec"]), {"selector", "targetPorts", "appProtocol", "endpointPickerRef"})
            for scaled in objects.get("ScaledObject", []):
                queries = [t["metadata"]["query"] for t in scaled["spec"]["triggers"]]
                self.assertTrue(any("vllm:num_requests_waiting" in q for q in queries))
                self.assertTrue(any("vllm:kv_cache_usage_perc" in q for q in queries))
                self.assertTrue(all(f'service="{service}"' in q and 'namespace="space"' in q for q in queries))
            for rule in objects.get("PrometheusRule", []):
                self.assertEqual(rule["spec"], load(CHART / "files/rules.yaml"))
            for config in objects.get("ConfigMap", []):
                self.assertEqual(json.loads(config["data"]["hgrn2-server.json"]), json.loads((CHART / "files/dashboard.json").read_text()))


class Values(unittest.TestCase):

    def test_gpu(self):
        pod = only(render(load(CHART / "values-gpu.yaml"))["Deployment"])["spec"]["template"]["spec"]
        container = pod["containers"][0]
        self.assertEqual(container["resources"]["limits"]["nvidia.com/gpu"], 1)
        self.assertIn("--device=cuda", container["args"])
        self.assertTrue(container["image"].endswith("-cuda"))
        self.assertTrue(pod["tolerations"] and pod["nodeSelector"] and pod["runtimeClassName"])

    def test_several_gpus_in_one_pod(self):
        objects = render({"gpu": {"enabled": True, "count": 4}, "model": {"source": "pvc", "pvc": {"claimName": "c"}}})
        container = only(objects["Deployment"])["spec"]["template"]["spec"]["containers"][0]
        self.assertIn("--device=cuda:0,cuda:1,cuda:2,cuda:3", container["args"])
        self.assertEqual(container["resources"]["limits"]["nvidia.com/gpu"], 4)

    def test_integers_stay_integers(self):
        objects = render({"server": {"flags": {"seed": 12345678, "max-prompt-tokens": 1048576, "http-idle-timeout": 1.5}}})
        arguments = only(objects["Deployment"])["spec"]["template"]["spec"]["containers"][0]["args"]
        for argument in ("--seed=12345678", "--max-prompt-tokens=1048576", "--http-idle-timeout=1.5"):
            self.assertIn(argument, arguments)

    def test_refused(self):
        cases = [
            ({"terminationGracePeriodSeconds": 30}, "must exceed"),
            ({"server": {"flags": {"no-such-flag": 1}}}, "no-such-flag"),
            ({"server": {"flags": {"max-prompt-tokens": 0}}}, "max-prompt-tokens"),
            ({"server": {"flags": {"grpc-port": 1}}}, "grpc-port"),
            ({"server": {"maxNumSeqs": "64"}}, "maxNumSeqs"),
            ({"model": {"source": "pvc"}}, "claimName"),
            ({"model": {"path": "../etc"}}, "path"),
            ({"gpu": {"enabled": True}}, "holds no model"),
            ({"server": {"tls": {"verifyClients": True}}}, "secretName"),
            ({"replicas": 3}, "replicas"),
            ({"tracing": {"otlpEndpoint": "https://collector:4318"}}, "otlpEndpoint"),
            ({"tracing": {"sampleRatio": 2}}, "sampleRatio"),
            ({"workload": {"kind": "DaemonSet"}}, "kind"),
            ({"model": {"servedName": "a"}, "server": {"flags": {"served-model-name": "b"}}}, "served-model-name"),
        ]
        for values, expected in cases:
            with self.subTest(values=values), self.assertRaises(Exception) as caught:
                self.schema_and_render(values)
            self.assertIn(expected, str(caught.exception))

    def schema_and_render(self, values):
        import helm_python
        with helm_python.Chart.load(CHART) as chart:
            chart.validate_schema(values)
        return render(values)

    def test_schema_knows_the_servers_flags(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        offered = set(schema["properties"]["server"]["properties"]["flags"]["properties"])
        secrets = {"tls": {"secretName": "tls", "verifyClients": True}, "apiKeys": {"secretName": "keys"}}
        tracing = {"otlpEndpoint": "http://collector:4318"}
        container = only(render({"server": secrets, "tracing": tracing})["Deployment"])["spec"]["template"]["spec"]["containers"][0]
        decided = {a[2:].split("=")[0] for a in container["args"]}
        self.assertEqual(offered & decided, set())
        # What the server has beyond these is no setting, or would show a secret in the pod's command line.
        self.assertEqual(server_flags() - offered - decided - {"help", "version"}, {"config", "grpc-api-key", "http-api-key"})

    def test_secrets_are_mounted_where_the_flags_point(self):
        secrets = {"tls": {"secretName": "a-tls", "verifyClients": True}, "apiKeys": {"secretName": "a-keys", "key": "k"}}
        pod = only(render({"server": secrets})["Deployment"])["spec"]["template"]["spec"]
        container = pod["containers"][0]
        flags = dict(a[2:].split("=", 1) for a in container["args"])
        volumes = {v["name"]: v for v in pod["volumes"]}
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        for flag, secret, name in (("grpc-tls-cert", "a-tls", "tls.crt"), ("grpc-tls-key", "a-tls", "tls.key"),
                                   ("grpc-tls-client-ca", "a-tls", "ca.crt"), ("grpc-api-key-file", "a-keys", "api-keys"),
                                   ("http-api-key-file", "a-keys", "api-keys")):
            folder, file = flags[flag].rsplit("/", 1)
            self.assertEqual(file, name)
            self.assertTrue(mounts[folder]["readOnly"])
            self.assertEqual(volumes[mounts[folder]["name"]]["secret"]["secretName"], secret)
        self.assertEqual(volumes["api-keys"]["secret"]["items"], [{"key": "k", "path": "api-keys"}])

    def test_traces_reach_the_collector_and_nothing_else(self):
        objects = render({"tracing": {"otlpEndpoint": "http://otel.obs:4318/base", "sampleRatio": 0.25, "collector": [{"podSelector": {}}]},
                          "networkPolicy": {"egress": [{"ports": [{"port": 9}]}]}})
        arguments = only(objects["Deployment"])["spec"]["template"]["spec"]["containers"][0]["args"]
        self.assertIn("--otlp-endpoint=http://otel.obs:4318/base", arguments)
        self.assertIn("--otlp-sample-ratio=0.25", arguments)
        own, collector, dns = only(objects["NetworkPolicy"])["spec"]["egress"]
        self.assertEqual(own, {"ports": [{"port": 9}]})
        self.assertEqual(collector, {"to": [{"podSelector": {}}], "ports": [{"port": 4318, "protocol": "TCP"}]})
        self.assertEqual({p["port"] for p in dns["ports"]}, {53})
        without = render({})
        self.assertEqual(only(without["NetworkPolicy"])["spec"]["egress"], [])
        self.assertNotIn("otlp", json.dumps(without["Deployment"]))
        for url, port in (("http://[::1]:4000", 4000), ("http://c", 80), ("http://10.0.0.9/x", 80)):
            rules = only(render({"tracing": {"otlpEndpoint": url}})["NetworkPolicy"])["spec"]["egress"]
            self.assertEqual(rules[0]["ports"][0]["port"], port, url)

    def test_documentation_has_every_runbook(self):
        text = (harness.ROOT / "docs/operations.md").read_text()
        headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
        alerts = [r for g in load(CHART / "files/rules.yaml")["groups"] for r in g["rules"] if "alert" in r]
        self.assertGreater(len(alerts), 10)
        for alert in alerts:
            self.assertEqual(alert["annotations"]["runbook_url"], f"docs/operations.md#{alert['alert'].lower()}")
            self.assertIn(alert["alert"].lower(), headings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="hgrn2-server binary")
    _, rest = parser.parse_known_args(namespace=OPTIONS)
    harness.limit(270)
    for module in ("helm_python", "kubernetes_validate", "yaml"):
        try:
            __import__(module)
        except ImportError as error:
            harness.skip(f"{module}: {error}")
    sys.exit(0 if unittest.main(argv=[sys.argv[0], *rest], exit=False).result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
