# SPDX-License-Identifier: GPL-3.0-or-later
"""A process between the shim and Moonraker's unix socket that writes down when it gave the shim each push of the head's place.

For group_ws.py: push_proxy.py LISTEN UPSTREAM FILE. A line of FILE is "x seconds": Klipper's live X and CLOCK_MONOTONIC just before the
push was written to the shim. Invariant: all bytes go through unchanged and in order.
"""
import json
import socket
import sys
import threading
import time


def pump(source, sink, note):
    rest = b""
    try:
        while data := source.recv(65536):
            if note is None:
                sink.sendall(data)
                continue
            *frames, rest = (rest + data).split(b"\x03")
            for frame in frames:
                at = time.monotonic()
                sink.sendall(frame + b"\x03")
                if b"live_position" in frame:
                    note(frame, at)
    except OSError:
        pass
    for s in (source, sink):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    listen, upstream, path = sys.argv[1:]
    out = open(path, "w", buffering=1, encoding="ascii")  # pylint: disable=consider-using-with

    def note(frame, at):
        push = json.loads(frame)
        if push.get("method") == "notify_status_update":
            out.write(f"{push['params'][0]['motion_report']['live_position'][0]:.6f} {at:.6f}\n")

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(listen)
    listener.listen(4)
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(upstream)
        except OSError:  # Moonraker does not serve yet: the client tries again
            client.close()
            continue
        threading.Thread(target=pump, args=(client, server, None), daemon=True).start()
        threading.Thread(target=pump, args=(server, client, note), daemon=True).start()


if __name__ == "__main__":
    main()
