# SPDX-License-Identifier: GPL-3.0-or-later
"""Headless Chromium for the tests, spoken to by its DevTools protocol, and a web site of somebody else.

Invariant: a Chromium ends with its owner's close(), and its profile with it.
"""
import base64
import contextlib
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

import rig
from helpers import wait_for

BINARY = shutil.which("chromium") or shutil.which("chromium-browser")

# Chromium itself asks before a public page reaches into a local network, and takes for public what it is `served`. Not every browser asks, so the server may not
# count on it.
NO_GUARD = "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessRespectPreflightResults"


class Chromium:
    """One page. `served` holds documents by their URL: the page gets these in place of what the network would bring."""

    def __init__(self, url="about:blank", options=(), size=(900, 600)):
        assert BINARY, "Chromium is not installed: scripts/setup chromium"
        self.folder = tempfile.mkdtemp(prefix="kp-browser-")
        self.process = subprocess.Popen(
            [BINARY, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
             "--disable-background-networking", NO_GUARD, "--remote-debugging-port=0", f"--user-data-dir={self.folder}",
             f"--window-size={size[0]},{size[1]}", *options, url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        active = Path(self.folder) / "DevToolsActivePort"
        wait_for("Chromium", lambda: active.exists() and active.read_text().count("\n"), 90)
        port = int(active.read_text().split()[0])
        pages = wait_for("its page", lambda: [t for t in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list")) if t["type"] == "page"], 60)
        self.context, self.last, self.contexts, self.served = contextlib.ExitStack(), 0, {}, {}
        self.link = self.context.enter_context(connect(pages[0]["webSocketDebuggerUrl"], compression=None, max_size=None))
        for domain in ("Page", "Runtime"):
            self.call(domain + ".enable")

    def _send(self, method, params):
        self.last += 1
        self.link.send(json.dumps({"id": self.last, "method": method, "params": params}))
        return self.last

    def call(self, method, **params):
        number = self._send(method, params)
        while True:
            m = json.loads(self.link.recv(timeout=60))
            if m.get("method") == "Runtime.executionContextCreated":
                self.contexts[m["params"]["context"]["origin"]] = m["params"]["context"]["id"]
            if m.get("method") == "Fetch.requestPaused":
                body = base64.b64encode(self.served[m["params"]["request"]["url"]].encode()).decode()
                self._send("Fetch.fulfillRequest", {"requestId": m["params"]["requestId"], "responseCode": 200, "body": body,
                                                    "responseHeaders": [{"name": "Content-Type", "value": "text/html"}]})
            if m.get("id") == number:
                assert "error" not in m, m
                return m["result"]

    def eval(self, expression, **how):
        """A value out of the page; a promise is waited for with awaitPromise=True."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, **how)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, url, document=None):
        """Goes there and waits until it is loaded. document: what is shown as if the server of that URL had sent it."""
        if document is not None:
            self.served[url] = document
            self.call("Fetch.enable", patterns=[{"urlPattern": u} for u in self.served])
        self.call("Page.navigate", url=url)
        wait_for(url, lambda: self.eval("document.readyState == 'complete' && location.href") == url, 60)

    def close(self):
        self.context.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Site(http.server.ThreadingHTTPServer):
    """A web server of somebody else on a free port: one document for every path, and a 307 to URL for /redirect?URL."""
    daemon_threads = True

    def __init__(self, document):
        super().__init__(("127.0.0.1", rig.free_port()), self.Handler)
        self.document = document.encode()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # pylint: disable=invalid-name
            path, _, to = self.path.partition("?")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(307 if path == "/redirect" else 200)
            if path == "/redirect":
                self.send_header("Location", to)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(self.server.document)

        do_POST = do_GET  # pylint: disable=invalid-name

        def log_message(self, *_):
            pass

    def close(self):
        self.shutdown()
        self.server_close()
