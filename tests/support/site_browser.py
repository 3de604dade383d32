"""A built site, a server that counts what it is asked, and a headless Chromium that looks at it."""

import contextlib
import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PYODIDE = Path(sys.prefix) / "pyodide"  # scripts/get_programs puts it there
START, PATIENCE = 180_000, 30_000  # milliseconds: a busy machine is slow, not wrong


class Server:
    """Serves a folder on this machine."""

    def __init__(self, folder):
        self.paths = paths = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                paths.append(self.path)

        handler = functools.partial(Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.handle_error = lambda *_: None  # a browser hangs up when it likes
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def chromium():
    """A browser; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def require_pyodide():
    """Folder of Pyodide; skips the test where there is none."""
    if not PYODIDE.is_dir():
        pytest.skip("needs Pyodide: scripts/get_programs .venv-test")
    return PYODIDE


def unnamed(page):
    """Roles of what the keyboard reaches and a screen reader cannot name."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and any(
            p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ())
        )
        and node["role"]["value"] != "RootWebArea"
        and not node.get("name", {}).get("value")
    ]


def contrasts(page, selectors):
    """Selector -> contrast of its text with what is behind it (WCAG 2.2, 1.4.3)."""
    return page.evaluate(
        """(selectors) => {
          const parts = (text) => text.match(/[\\d.]+/g).map(Number);
          const bright = (text) => {
            const [r, g, b] = parts(text).slice(0, 3).map((v) => v / 255)
              .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = (element) => {
            for (let at = element; at; at = at.parentElement) {
              const found = getComputedStyle(at).backgroundColor;
              if (parts(found)[3] !== 0) return found;
            }
          };
          return Object.fromEntries(selectors.map((selector) => {
            const element = document.querySelector(selector);
            const { color, fill } = getComputedStyle(element);
            const ink = element instanceof SVGElement ? fill : color;
            const two = [ink, behind(element)].map(bright);
            return [selector, (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05)];
          }));
        }""",
        selectors,
    )
