#!/usr/bin/env python3
"""Compares the chat template engine with Jinja2, set up as `transformers` does.

  differential_test.py --cli BUILD/bin/chat_cli [--count 4000] [--record FILE]

--record writes the vectors that vectors_test.cc checks where there is no Jinja2. Needs the packages of
requirements.txt: ctest runs it through tests/deploy/run_in_venv.sh.
"""
import argparse
import copy
import datetime
import json
import os
import pathlib
import subprocess
import sys

NOW = 1721988000  # 2024-07-26 10:00 UTC


def make_environment():
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """{% generation %}: a scope that transformers uses to find the assistant's tokens."""
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("render"), [], [], body).set_lineno(line)

        def render(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(
        NOW, datetime.timezone.utc).strftime(form)
    return environment


def expect(environment, template, variables):
    try:
        text = environment.from_string(template).render(**copy.deepcopy(variables))
        if "<generator " in text or " at 0x" in text:  # an address: no template means that
            return {"error": "prints an object"}
        return {"text": text}
    except Exception as error:  # whatever Python raises is an error to a template
        return {"error": str(error)}


def same(expected, actual, template):
    # A generator's address, in Python; a constant that cannot be sliced is undefined in Jinja2, a variable
    # an error, as both are here.
    if any(words in actual.get("error", "") for words in ("has no text (a list, perhaps", "cannot be sliced")):
        return True
    if "text" in expected or "text" in actual:
        return expected.get("text") == actual.get("text")
    if "raise_exception" not in template:
        return True
    return "Error" in expected["error"] or expected["error"] == actual["error"] or "line" in actual["error"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cli", required=True)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--record", type=pathlib.Path)
    options = parser.parse_args()
    import cases

    jobs = [*cases.model_cases(), *cases.language_cases(), *cases.random_cases(options.count)]
    lines = "".join(json.dumps({"template": t, "variables": v, "now": NOW}) + "\n" for _, t, v in jobs)
    done = subprocess.run([options.cli], input=lines, capture_output=True, text=True, encoding="utf-8",
                          env={**os.environ, "TZ": "UTC"})
    if done.returncode != 0:
        sys.exit(f"FAILED: {options.cli}: exit status {done.returncode} {done.stderr}")
    answers = [json.loads(line) for line in done.stdout.split("\n") if line]
    environment = make_environment()
    failures = 0
    recorded = []
    texts = 0
    for (name, template, variables), actual in zip(jobs, answers, strict=True):
        expected = expect(environment, template, variables)
        texts += "text" in expected
        if not same(expected, actual, template):
            failures += 1
            if failures <= 40:
                print(f"FAILED {name}\n  {template[:300]!r}\n  Jinja2: {expected}\n  ours:   {actual}")
        elif expected.get("text") == actual.get("text") and (not name.startswith("random") or len(recorded) < 1200):
            recorded.append([name, template, variables, expected.get("text")])
    print(f"{len(jobs)} templates, {texts} of them with a text, {failures} differ")
    if options.record and not failures:
        record(options.record, recorded)
    return 1 if failures else 0


def record(path, recorded):
    """Templates and variables once each; a null text is an error."""
    templates, variables, vectors = {}, {}, []
    for name, template, values, text in recorded:
        t = templates.setdefault(template, len(templates))
        v = variables.setdefault(json.dumps(values), len(variables))
        vectors.append([name, t, v, text])
    document = {"now": NOW, "templates": list(templates), "variables": [json.loads(v) for v in variables],
                "vectors": vectors}
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.exit(main())
