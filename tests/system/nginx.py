# SPDX-License-Identifier: GPL-3.0-or-later
"""The real nginx with the example configuration of klipper_cfg/nginx, for the tests. Invariant: what it reads is the shipped text; only ports, paths,
keys and the certificate of clients, which the example leaves as a comment, are put in.

    with Nginx("klipperplace", {"127.0.0.1:7180": f"127.0.0.1:{machine.port}"}) as front:
        helpers.ok(helpers.get(front, "version"))
"""
import contextlib
import copy
import http.client
import os
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import rig
import ws_client
from rig_process import Process, RigError, write_run_file

EXAMPLES = rig.REPO / "klipper_cfg" / "nginx"
BINARY = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

# Around the examples stands what Debian's own nginx.conf says. One process, so that none is left when this one's owner is killed.
MAIN = """{user}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    gzip on;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include conf.d/*.conf;
    include sites-available/{site};
}}
"""


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def certificate(folder, name, subject, *more):
    """NAME.pem and NAME.key as docs/operate.md makes them: signed by itself, or with more by `-CA FILE -CAkey FILE`."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 3650, "-subj", f"/CN={subject}",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", *more)
    return folder / f"{name}.pem", folder / f"{name}.key"


def tunnel(tls, plain):
    """All bytes between the two, until one ends. The library of the WebSockets reads and writes in two threads, which Python 3.11's TLS does not bear."""
    with tls, plain, contextlib.suppress(OSError):
        while True:
            readable = [tls] if tls.pending() else select.select([tls, plain], [], [])[0]
            tls.settimeout(0)
            with contextlib.suppress(ssl.SSLWantReadError):
                if tls in readable:
                    data = tls.recv(65536)
                    if not data:
                        return
                    plain.sendall(data)
            tls.settimeout(30)
            if plain in readable:
                data = plain.recv(65536)
                if not data:
                    return
                tls.sendall(data)


class Nginx:
    """nginx before one or more machines. `site` is a file of sites-available; `places` are texts of the examples and what stands in the test for them."""

    def __init__(self, site, places, client_certificates=False):
        assert BINARY, "nginx is not installed: scripts/setup nginx"
        self.folder = Path(tempfile.mkdtemp(prefix="kp-rig-nginx-", dir="/tmp"))
        write_run_file(self.folder, [])
        self.keys = self.folder / "klipperplace"
        self.port = rig.free_port()
        self.plain_port = rig.free_port({self.port})
        self.prefix, self.identity, self.headers, self.key = "", None, {}, None  # key: none but in the headers
        self._write(site, places, client_certificates)
        names = "DNS:machine.example,DNS:machines.example,IP:127.0.0.1"
        self.server_pem = certificate(self.keys, "server", "machine.example", "-addext", f"subjectAltName={names}")[0]
        if client_certificates:
            certificate(self.keys, "clients-ca", "our clients")
        self.process = Process(self.folder, "nginx", [BINARY, "-p", self.folder, "-e", "stderr", "-c", self.folder / "nginx.conf"])

    def _write(self, site, places, client_certificates):
        shutil.copytree(EXAMPLES, self.folder, dirs_exist_ok=True)
        six = has_ipv6()
        changes = {
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};", "listen 443 ": f"listen 127.0.0.1:{self.port} ",
            "listen [::]:80;": f"listen [::1]:{self.plain_port};" if six else "", "https://$host$": f"https://$host:{self.port}$",
            "listen [::]:443 ssl http2;": f"listen [::1]:{self.port} ssl http2;" if six else "",
            "/etc/nginx/": f"{self.folder}/", **places}
        if client_certificates:
            changes["#include snippets/klipperplace-certificates.conf;"] = "include snippets/klipperplace-certificates.conf;"
        used = set()
        files = [self.folder / "sites-available" / site, *(f for d in ("conf.d", "snippets", "klipperplace") for f in (self.folder / d).iterdir())]
        for file in files:
            text = file.read_text()
            for old, new in changes.items():
                if old in text:
                    used.add(old)
                    text = text.replace(old, new)
            file.write_text(text)
        assert used == set(changes), f"the examples do not have {set(changes) - used}"
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(MAIN.format(folder=self.folder, site=site, user=user))

    def __enter__(self):
        self.process.start()
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return self
            except OSError as e:
                if not self.process.alive or time.monotonic() > deadline:
                    log = self.log()
                    self.__exit__(RigError)
                    raise RigError(f"nginx does not serve: {log}") from e
            time.sleep(0.02)

    def __exit__(self, kind=None, *_):
        problems = self.process.stop()
        log = self.log()
        shutil.rmtree(self.folder, ignore_errors=True)
        if problems and kind is None:
            raise RigError("\n".join(problems) + log)

    def client(self, **differs):
        """Another client of the same nginx: client(prefix="/machine1"), client(identity=(certificate, key)), client(headers={...})."""
        other = copy.copy(self)
        for name, value in differs.items():
            setattr(other, name, value)
        return other

    def context(self):
        """TLS of a client that trusts this server only, with its own certificate in `identity` where it has one."""
        c = ssl.create_default_context(cafile=self.server_pem)
        if self.identity:
            c.load_cert_chain(*self.identity)
        return c

    def connection(self, timeout=150.0):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context())

    def request(self, method, path, body=None, headers=None, timeout=150.0):
        return rig.http_ask(self.connection(timeout), method, self.prefix + path, body, {**self.headers, **(headers or {})})

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body if body is not None else {}, **options)

    def socket(self, name="127.0.0.1"):
        """A connection that has shaken hands with the server of that name."""
        return self.context().wrap_socket(socket.create_connection(("127.0.0.1", self.port), 30), server_hostname=name)

    def websocket(self, **options):
        """A session of ws_client through this nginx."""
        headers = {**self.headers, **options.pop("headers", {})}
        ours, theirs = socket.socketpair()
        threading.Thread(target=tunnel, args=(self.socket(), theirs), daemon=True).start()
        return ws_client.Client(self, url=f"ws://127.0.0.1:{self.port}{self.prefix}/ws/v1", sock=ours, additional_headers=headers, **options)

    def log(self):
        file = self.folder / "error.log"
        return (file.read_text() if file.exists() else "") + self.process.output()
