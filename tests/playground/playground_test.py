#!/usr/bin/env python3
"""A real Chromium uses the playground of a real server: generates, stops, forks, rewinds, chats; with the mouse and
with the keyboard alone; in light, in dark, and on a phone's width.

  playground_test.py --server BUILD/bin/hgrn2-server --screenshots FOLDER

Screenshots are kept in FOLDER. Exits with 77 (skipped) where there is no Chromium.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from chromium import Browser, find_browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = None
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """hgrn2-server with the embedded model on a port of its own."""

    def __init__(self, binary, *flags):
        self.log = tempfile.NamedTemporaryFile("w+b", prefix="playground-server-")
        self.process = subprocess.Popen(
            [binary, "--model", str(ROOT / "models/hgrn2-gutenberg-12m"), "--host", "127.0.0.1", "--device", "cpu",
             "--grpc-port", "0", "--http-port", "0", *flags], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        port = None
        while port is None:
            text = pathlib.Path(self.log.name).read_text(errors="replace")
            port = re.search(r"HTTP listening on \S+:(\d+)", text)
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"the server does not start:\n{text}")
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{port[1]}/"

    def running(self):
        with HTTP.open(self.url + "metrics", timeout=30) as answer:
            return float(re.search(r"^vllm:num_requests_running\S* (\S+)$", answer.read().decode(), re.M)[1])

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


class Playground(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(OPTIONS.server)
        cls.browser = Browser(find_browser())

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.server.close()

    def setUp(self):
        self.page = self.browser.page()
        self.page.size(1280, 900)
        self.page.open(self.server.url)
        self.page.wait("document.getElementById('model').textContent.includes('hgrn2')")

    def tearDown(self):
        self.assertEqual(self.page.problems, [])  # no script error, nothing against the content security policy
        self.page.close()

    def text(self):
        return self.page.run("[...document.querySelectorAll('#view .text')].at(-1).textContent")

    def tokens(self):
        return self.page.run("document.querySelectorAll('#view .tok').length")

    def set(self, **values):
        for name, value in values.items():
            self.page.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(str(value))}")

    def start_endless(self):
        """Sets the parameters of an answer that only ends when it is stopped."""
        self.set(max_tokens=1000000)
        self.page.run("document.getElementById('ignore_eos').checked = true")

    def wait_end(self):
        self.page.wait("!running && document.getElementById('reason')", "the end of the answer")

    def reason(self):
        return self.page.run("document.getElementById('reason').textContent")

    def generate(self, **values):
        self.set(**values)
        self.page.click("#go")
        self.wait_end()

    def shot(self, name, full=False):
        self.page.screenshot(OPTIONS.screenshots / f"{name}.png", full)

    def test_generate_and_alternatives(self):
        self.generate(prompt="Once upon a time", max_tokens=40, seed=7, temperature=0.8)
        self.assertEqual(self.reason(), "length")
        self.assertEqual(self.tokens(), 40)
        text = self.text()
        self.assertTrue(text.startswith("Once upon a time"))
        # The shades are the probabilities: some sure, some not.
        shades = self.page.run("[...document.querySelectorAll('.tok')].map((t) => Number(t.style.getPropertyValue('--p')))")
        self.assertTrue(all(0 < p <= 1 for p in shades), shades)
        self.assertLess(min(shades), 0.5)
        # The text itself is what the API gives for the same seed.
        body = json.dumps({"prompt": "Once upon a time", "max_tokens": 40, "seed": 7, "temperature": 0.8, "top_p": 0.95}).encode()
        request = urllib.request.Request(self.server.url + "v1/completions", body, {"content-type": "application/json"})
        with HTTP.open(request, timeout=60) as answer:
            self.assertEqual("Once upon a time" + json.load(answer)["choices"][0]["text"], text)
        self.page.move(".tok", 5)
        self.page.wait("!document.getElementById('pop').hidden")
        self.assertGreaterEqual(self.page.run("document.querySelectorAll('#pop .alt').length"), 5)
        self.shot("completion-light")

    def test_same_seed_same_text_and_share(self):
        self.generate(prompt="The sea", max_tokens=24, seed=11)
        first = self.text()
        self.page.click("#go")
        self.wait_end()
        self.assertEqual(self.text(), first)
        self.page.click("#share")
        self.page.wait("location.hash.length > 10")
        link = self.page.run("location.href")
        self.page.open("about:blank#")
        self.page.open(link)
        self.page.wait("document.getElementById('model').textContent.includes('hgrn2')")
        self.assertEqual(self.page.run("document.getElementById('prompt').value"), "The sea")
        self.assertEqual(self.page.run("document.getElementById('seed').value"), "11")
        self.page.click("#go")
        self.wait_end()
        self.assertEqual(self.text(), first)

    def test_stop_cancels_on_the_server(self):
        self.set(prompt="Once")
        self.start_endless()
        self.page.click("#go")
        self.page.wait("document.querySelectorAll('.tok').length > 5")
        self.assertGreaterEqual(self.server.running(), 1)
        self.page.click("#stop")
        self.wait_end()
        self.assertEqual(self.reason(), "stopped")
        stopped = self.tokens()
        self.assertGreater(stopped, 5)
        deadline = time.monotonic() + 10
        while self.server.running() > 0:
            self.assertLess(time.monotonic(), deadline, "the request still runs on the server")
            time.sleep(0.05)
        self.assertEqual(self.tokens(), stopped)

    def test_fork_and_rewind(self):
        self.generate(prompt="The old man", max_tokens=20, seed=3)
        first = self.text()
        before = self.page.run("'The old man' + [...document.querySelectorAll('.tok')].slice(0, 4).map((t) => t.textContent).join('')")
        self.page.click(".tok", 4)
        self.page.wait("!document.getElementById('pop').hidden")
        other = self.page.run("current.tokens[4].top.find((t) => t.text !== current.tokens[4].text).text")
        at = self.page.run(f"[...document.querySelectorAll('#pop .alt')].findIndex((b) => !b.classList.contains('chosen'))")
        self.page.click("#pop .alt", at)
        self.wait_end()
        self.assertTrue(self.text().startswith(before + other), (self.text(), before, other))
        self.assertNotEqual(self.text(), first)
        self.assertTrue(self.tokens() == 25 or self.reason() == "stop", (self.tokens(), self.reason()))
        self.shot("fork-light")
        # Back to the first branch, as it was.
        self.page.click("#branches button", 0)
        self.assertEqual(self.text(), first)
        # Rewind: the text is cut there, and goes on from there.
        self.page.click(".tok", 4)
        self.page.click("#pop .foot button", 0)
        self.assertEqual(self.text(), before)
        self.page.click("#more")
        self.wait_end()
        self.assertTrue(self.text().startswith(before))
        self.assertTrue(self.tokens() == 24 or self.reason() == "stop", (self.tokens(), self.reason()))

    def test_chat_rewinds_and_forks(self):
        self.page.click("input[name=mode]", 1)
        self.set(system="A conversation between a sailor and a child.", max_tokens=16, seed=5)
        self.page.click("#prompt")
        self.page.type("Tell me of the sea.")
        self.page.press("Enter")
        self.wait_end()
        self.assertEqual(self.page.run("current.messages.length"), 2)
        first = self.text()
        self.generate(prompt="And then?")
        self.assertEqual(self.page.run("current.messages.length"), 4)
        self.shot("chat-light")
        # Edit the second message: the first pair stays, the rest is another branch.
        self.page.click(".message.user .button", 1)
        self.assertEqual(self.page.run("document.getElementById('prompt').value"), "And then?")
        self.assertEqual(self.page.run("document.querySelectorAll('.message').length"), 2)
        self.generate(prompt="Why?")
        self.assertEqual(self.page.run("current.messages.map((m) => m.role).join()"), "user,assistant,user,assistant")
        self.assertEqual(self.page.run("document.querySelectorAll('.message .text')[1].textContent"), first)
        self.assertEqual(self.page.run("document.querySelectorAll('#branches button').length"), 2)
        # Fork within the model's answer: it goes on with another word.
        word = self.page.run("[...document.querySelectorAll('.message.assistant:last-child .tok')].findIndex((t, i) => i > 0 && /\\w/.test(t.textContent))")
        self.page.click(".message.assistant:last-child .tok", word)
        self.page.wait("!document.getElementById('pop').hidden")
        at = self.page.run("[...document.querySelectorAll('#pop .alt')].findIndex((b) => !b.classList.contains('chosen'))")
        self.page.click("#pop .alt", at)
        self.wait_end()
        self.assertEqual(self.page.run("document.querySelectorAll('#branches button').length"), 3)
        self.assertGreater(self.page.run("current.messages.at(-1).tokens.length"), word)

    def test_errors_are_shown(self):
        self.set(temperature=1000)
        self.page.click("#go")
        self.page.wait("!document.getElementById('error').hidden")
        self.assertIn("temperature", self.page.run("document.getElementById('error-text').textContent"))
        self.assertEqual(self.page.run("document.getElementById('temperature').getAttribute('aria-invalid')"), "true")
        self.shot("error-light")
        self.page.problems = [p for p in self.page.problems if "400" not in p]  # the browser logs the refusal
        self.set(temperature=0.8)
        self.generate(max_tokens=4)
        self.assertTrue(self.page.run("document.getElementById('error').hidden"))

    def test_live_panel_moves(self):
        self.page.wait("document.getElementById('live-slots').textContent.includes('/')")
        self.set(prompt="Long ago")
        self.start_endless()
        self.page.click("#go")
        self.page.wait("parseFloat(document.getElementById('live-rate').textContent) > 0", "tokens/s")
        self.page.wait("parseFloat(document.getElementById('live-batch').textContent) >= 1", "batch size")
        self.page.wait("parseFloat(document.getElementById('live-slots').textContent) >= 1", "slots")
        self.page.wait("parseFloat(document.getElementById('live-ttft').textContent) > 0", "time to first token")
        self.page.wait("parseFloat(document.getElementById('live-itl').textContent) > 0", "inter-token latency")
        self.page.wait("series.rate.length > 3 && document.querySelector('#live-rate + svg .line').getAttribute('d').length > 20")
        self.shot("live-light")
        self.page.press("Escape")
        self.wait_end()
        self.page.wait("document.getElementById('live-rate').textContent.startsWith('0')", "tokens/s back at zero")

    def test_keyboard_alone(self):
        page = self.page
        focused = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
        for _ in range(30):
            page.press("Tab")
            if page.run(focused) == "prompt":
                break
        self.assertEqual(page.run(focused), "prompt")
        self.set(max_tokens=12)
        page.run("document.getElementById('prompt').select()")
        page.type("It was night")
        page.press("Enter", control=True)
        self.wait_end()
        self.assertEqual(self.tokens(), 12)
        for _ in range(30):
            page.press("Tab")
            if "tok" in page.run(focused):
                break
        self.assertIn("tok", page.run(focused))
        self.assertFalse(page.run("document.getElementById('pop').hidden"))  # focus shows the alternatives
        for _ in range(3):
            page.press("ArrowRight")
        self.assertEqual(page.run("document.activeElement.dataset.index"), "3")
        page.press("Enter")  # into the alternatives
        self.assertTrue(page.run("document.getElementById('pop').contains(document.activeElement)"))
        page.press("Escape")
        self.assertEqual(page.run("document.activeElement.dataset.index"), "3")
        page.press("Enter")
        page.press("ArrowDown")
        page.press("Enter")  # forks with the second alternative
        page.wait("branches.length === 2")
        self.wait_end()
        self.assertTrue(self.tokens() == 16 or self.reason() == "stop", (self.tokens(), self.reason()))
        # Stop by Escape.
        self.start_endless()
        page.run("document.getElementById('prompt').focus()")
        page.press("Enter", control=True)
        page.wait("document.querySelectorAll('.tok').length > 3")
        page.press("Escape")
        self.wait_end()
        self.assertEqual(self.reason(), "stopped")

    def test_names_for_assistive_technology(self):
        unnamed = self.page.run("""[...document.querySelectorAll('button, input, textarea, select, a')].filter((e) =>
            e.checkVisibility() && !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)""")
        self.assertEqual(unnamed, [])
        self.assertEqual(self.page.run("document.documentElement.lang"), "en")

    def test_dark(self):
        self.page.prefer(color_scheme="dark")
        self.page.wait("document.documentElement.classList.contains('dark')")
        self.generate(prompt="The lamp went out, and", max_tokens=60, seed=2)
        self.page.move(".tok", 8)
        self.page.wait("!document.getElementById('pop').hidden")
        self.shot("completion-dark")
        contrast = self.page.run(CONTRAST)
        self.assertGreaterEqual(contrast["text"], 7, contrast)
        self.assertGreaterEqual(contrast["muted"], 4.5, contrast)
        # The button goes through as-the-system, light, dark; a choice is kept.
        self.page.click("#theme")
        self.assertFalse(self.page.run("document.documentElement.classList.contains('dark')"))
        contrast = self.page.run(CONTRAST)
        self.assertGreaterEqual(contrast["text"], 7, contrast)
        self.assertGreaterEqual(contrast["muted"], 4.5, contrast)
        self.page.open(self.server.url + "?again")
        self.assertEqual(self.page.run("document.getElementById('theme').textContent"), "Light")
        self.page.run("localStorage.clear()")

    def test_phone(self):
        for scheme in ("light", "dark"):
            self.page.prefer(color_scheme=scheme)
            self.page.size(390, 844, scale=2, touch=True)
            self.page.open(self.server.url + f"?{scheme}")
            self.page.wait("document.getElementById('model').textContent.includes('hgrn2')")
            self.assertFalse(self.page.run("document.getElementById('parameters').open"))
            self.page.run("document.getElementById('parameters').open = true")
            self.generate(prompt="The captain said", max_tokens=30, seed=4)
            wide = self.page.run("""[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('.sr, .skip, .pop') &&
                e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 100))""")
            self.assertEqual(wide, [])
            self.assertLessEqual(self.page.run("document.documentElement.scrollWidth"), 390)
            self.page.click(".tok", 6)
            self.page.wait("!document.getElementById('pop').hidden")
            box = self.page.run("(() => { const r = document.getElementById('pop').getBoundingClientRect(); return [r.left, r.right]; })()")
            self.assertGreaterEqual(box[0], 0)
            self.assertLessEqual(box[1], 390)
            self.shot(f"phone-{scheme}")
            self.page.click("#pop .foot button", 1)
            self.shot(f"phone-{scheme}-whole", full=True)
        self.page.size(1280, 900)

    def test_nothing_from_outside_and_no_injection(self):
        with HTTP.open(self.server.url, timeout=30) as answer:
            policy = answer.headers["content-security-policy"]
            page = answer.read().decode()
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertNotRegex(page.replace("http://www.w3.org/2000/svg", ""), r"https?://")
        nonce = re.search(r"'nonce-(\w{16,})'", policy)[1]
        self.assertNotIn("__NONCE__", page)
        with HTTP.open(self.server.url, timeout=30) as answer:
            self.assertNotIn(nonce, answer.headers["content-security-policy"])
        self.generate(prompt="<img src=x onerror='document.title=1'><script>document.title=2</script>", max_tokens=4)
        self.assertEqual(self.page.run("document.title"), "hgrn2 playground")
        self.assertEqual(self.page.run("document.querySelectorAll('#view img, #view script').length"), 0)


# WCAG contrast of the text and of muted text on the card.
CONTRAST = """(() => {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const card = luminance(getComputedStyle(document.getElementById('form')).backgroundColor);
  return {text: ratio(luminance(getComputedStyle(document.body).color), card),
          muted: ratio(luminance(getComputedStyle(document.getElementById('prompt-label')).color), card)};
})()"""


class WithApiKey(unittest.TestCase):
    def test_asks_for_the_key(self):
        server = Server(OPTIONS.server, "--http-api-key", "open-sesame")
        browser = Browser(find_browser())
        try:
            page = browser.page()
            page.open(server.url)
            page.wait("!document.getElementById('error').hidden")
            self.assertEqual(page.run("document.getElementById('key').getAttribute('aria-invalid')"), "true")
            page.click("#key")
            page.type("open-sesame")
            page.press("Tab")
            page.wait("document.getElementById('model').textContent.includes('hgrn2')")
            page.run("document.getElementById('max_tokens').value = 5")
            page.click("#go")
            page.wait("!running && document.getElementById('reason')")
            self.assertEqual(page.run("document.querySelectorAll('.tok').length"), 5)
        finally:
            browser.close()
            server.close()


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--screenshots", type=pathlib.Path, required=True)
    OPTIONS, rest = parser.parse_known_args()
    if find_browser() is None:
        print("SKIPPED: no Chromium is installed (apt-get install chromium)", file=sys.stderr)
        return 77
    OPTIONS.screenshots.mkdir(parents=True, exist_ok=True)
    result = unittest.main(argv=[sys.argv[0], "-v", *rest], exit=False).result
    failed = [test.id().removeprefix("__main__.") for test, _ in result.failures + result.errors if "." in test.id()]
    if failed:
        # Once more, with a fresh browser and server: on a busy machine a wait can run out.
        print("again:", *failed, file=sys.stderr)
        result = unittest.main(argv=[sys.argv[0], "-v", *failed], exit=False).result
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
