# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, roles and tokens: who may ask for what, by REST, by WebSocket and in the queue, and what wrong keys cost.

For a machine in a workshop's network. Invariant tested: every row of the registry lets in those whose role says so and nobody else; the rows come from the
document that the server prints, so that none is missing.
"""
import contextlib
import http.client
import itertools
import json
import os
import random
import re
import sqlite3
import stat
import statistics
import subprocess
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

import helpers
import rig
from contract import Contract
from helpers import get, ok, post, refused, steps, wait_for
from ws_client import Client, RpcFailed

FIXED = "the-key-of-the-configuration"
ROLES = ("public", "viewer", "operator", "admin")
UNKNOWN = {"zzz": 1}  # a parameter that no row knows: a request that passed the guard is refused for it, and nothing is done
SLOW_AFTER, BLOCK_AFTER = 3, 10  # auth.h


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "klipperplace.db"


@pytest.fixture(scope="module")
def machine(place):
    with rig.Rig(klipperplace_extra=f"[api]\napi_key_enabled: true\napi_key: {FIXED}\n[history]\ndatabase: {place}\n") as r:
        r.key = FIXED
        yield r


@pytest.fixture(scope="module")
def contract(machine):
    return Contract(machine.get("/api/v1/openapi.json")[1])


@pytest.fixture
def fresh_address(_addresses=itertools.count(2)):
    """Loopback addresses from which nothing has come yet."""
    return lambda: "127.0.%d.%d" % divmod(next(_addresses), 250)


def key_header(key):
    return {"X-API-Key": key}


def admin(machine, method, path, body=None):
    return machine.request(method, "/api/v1/auth/" + path, body)  # with the rig's key


def make(machine, role, **more):
    return ok(admin(machine, "POST", "keys", {"name": f"a {role}", "role": role, **more}))


@pytest.fixture(scope="module")
def keys(machine):
    """A key of each kind, by name."""
    made = {role: make(machine, role)["key"] for role in ROLES[1:]}
    made["expired"] = make(machine, "admin", expires_at=time.time() - 60)["key"]
    made["off"] = make(machine, "admin", enabled=False)["key"]
    made["configuration"] = FIXED
    made["wrong"] = "kp_" + "x" * 43
    made["none"] = None
    return made


# ---- the matrix ----------------------------------------------------------------------------------------------------------------

KINDS = {"none": "AUTHORIZATION_REQUIRED", "wrong": "INVALID_API_KEY", "expired": "AUTHENTICATION_FAILED", "off": "AUTHENTICATION_FAILED",
         "viewer": 1, "operator": 2, "admin": 3, "configuration": 3}


def expected(role, kind):
    """The code of a refusal by the guard; None: it passes."""
    if role == "public":
        return None
    if isinstance(KINDS[kind], str):
        return KINDS[kind]
    return None if KINDS[kind] >= ROLES.index(role) else "PERMISSION_DENIED"


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_by_rest(machine, contract, keys, kind, fresh_address):
    """Rows x keys. A request with an unknown parameter that gets as far as its parameters has passed."""
    seen = set()
    for method, path, op in contract.operations():
        url = re.sub(r"{\w+}", "00000000-0000-4000-8000-000000000000", path)
        body = UNKNOWN if method in ("POST", "PUT") else None
        answer = machine.request(method, url + ("?zzz=1" if body is None else ""), body, headers=key_header(keys[kind]), source=fresh_address())
        if path not in ("/health", "/ready", "/metrics", "/api/v1/openapi.json"):
            contract.judge(method, path, answer)
        code = expected(op["x-role"], kind)
        if code:
            assert answer[1]["error_code"] == code, (op["operationId"], answer)
        elif answer[0] != 200:  # rows without an envelope have no parameters
            assert answer[1]["error_code"] == "INVALID_PARAMETER", (op["operationId"], answer)
            assert [e["field"] for e in answer[1]["details"]["errors"]] == ["zzz"] or "zzz" in helpers.fields(answer[1]), answer
        seen.add(op["x-role"])
    assert seen == set(ROLES)


@pytest.mark.parametrize("kind", ["viewer", "operator", "admin"])
def test_every_row_by_websocket(machine, contract, keys, kind):
    with Client(machine, additional_headers=key_header(keys[kind])) as c:
        for _, path, op in contract.operations():
            if path in ("/health", "/ready", "/metrics", "/api/v1/openapi.json"):
                continue
            with pytest.raises(RpcFailed) as failed:
                c.execute(op["operationId"], **UNKNOWN)
            code = failed.value.data["error_code"]
            want = expected(op["x-role"], kind)
            assert code == (want or "INVALID_PARAMETER") or (not want and code == "MISSING_PARAMETER"), (op["operationId"], failed.value.data)


def test_queue_takes_nothing_above_an_operator(machine, contract, keys):
    """What queue and batch can hold is what an operator may ask for; all else they do not know."""
    for _, _, op in contract.operations():
        for path, body in (("queue/add", {"command": op["operationId"], "parameters": UNKNOWN}),
                           ("batch/execute", {"commands": [{"command": op["operationId"], "parameters": UNKNOWN}]})):
            answer = refused(post(machine, path, body, headers=key_header(keys["operator"])), "INVALID_PARAMETER", "COMMAND_NOT_FOUND", "MISSING_PARAMETER")
            inside = any("parameters" in (field or "") for field in helpers.fields(answer))
            assert not inside or op["x-role"] in ("viewer", "operator"), (path, op["operationId"], answer)
            refused(post(machine, path, body, headers=key_header(keys["viewer"])), "PERMISSION_DENIED")


def test_a_refused_command_moves_nothing(machine, keys):
    helpers.make_ready(machine)
    before = {a: steps(machine, a)["total_steps"] for a in "xyz"}
    with helpers.nothing_reaches_klipper(machine):
        for kind in ("none", "viewer", "off"):
            post(machine, "motion/home", {}, headers=key_header(keys[kind]))
    assert {a: steps(machine, a)["total_steps"] for a in "xyz"} == before
    assert ok(post(machine, "motion/home", {"axes": ["a"]}, headers=key_header(keys["operator"])))["homed_axes"] == ["a"]


def test_an_emergency_stop_wants_a_key_of_an_operator(machine, keys):
    refused(post(machine, "system/emergency_stop", {}, headers=key_header(keys["viewer"])), "PERMISSION_DENIED")
    assert ok(post(machine, "system/emergency_stop", {}, headers=key_header(keys["operator"])))["emergency_stop_active"] is True
    ok(post(machine, "system/reset", {}, headers=key_header(keys["operator"])))


# ---- keys ----------------------------------------------------------------------------------------------------------------------

def status_of(machine, key):
    return get(machine, "status", headers=key_header(key))[0]


def test_life_of_a_key(machine, contract):
    def judged(method, path, url, body=None):
        return ok(contract.judge(method, "/api/v1/auth/" + path, admin(machine, method, url, body)))
    made = judged("POST", "keys", "keys", {"name": "bench", "role": "viewer"})
    assert re.fullmatch(r"kp_[\w-]{43}", made["key"]) and made["expires_at"] is None and made["last_used_at"] is None
    one = "keys/" + made["id"]
    assert status_of(machine, made["key"]) == 200
    known = judged("GET", "keys/{id}", one)
    assert abs(known["last_used_at"] - time.time()) < 60 and "key" not in known
    refused(post(machine, "motion/wait", {}, headers=key_header(made["key"])), "PERMISSION_DENIED")
    assert judged("PUT", "keys/{id}", one, {"role": "operator", "name": "line 1"})["name"] == "line 1"
    ok(post(machine, "motion/wait", {}, headers=key_header(made["key"])))
    other = judged("POST", "keys/{id}/rotate", one + "/rotate")
    assert other["id"] == made["id"] and other["key"] != made["key"] and other["role"] == "operator"
    assert (status_of(machine, made["key"]), status_of(machine, other["key"])) == (401, 200)
    judged("PUT", "keys/{id}", one, {"enabled": False})
    assert status_of(machine, other["key"]) == 401
    judged("PUT", "keys/{id}", one, {"enabled": True, "expires_at": time.time() - 1})
    assert status_of(machine, other["key"]) == 401
    judged("PUT", "keys/{id}", one, {"expires_at": 0})
    assert status_of(machine, other["key"]) == 200
    assert judged("DELETE", "keys/{id}", one)["deleted_id"] == made["id"]
    assert status_of(machine, other["key"]) == 401
    for method in ("GET", "PUT", "DELETE"):
        refused(admin(machine, method, one, {} if method == "PUT" else None), "NOT_FOUND")
    refused(admin(machine, "POST", "keys", {"name": "x", "role": "root"}), "INVALID_PARAMETER")
    refused(admin(machine, "POST", "keys", {"role": "viewer"}), "MISSING_PARAMETER")


def test_a_key_ends_when_its_time_is_over(machine):
    made = make(machine, "viewer", expires_at=time.time() + 1.5)
    seen = {status_of(machine, made["key"])}
    wait_for("it ends", lambda: status_of(machine, made["key"]) == 401, 20)
    assert seen <= {200, 401}


def test_status_of_keys(machine, keys):
    told = ok(admin(machine, "GET", "status"))
    assert told["enabled"] is True and told["role"] == "admin" and told["keys"] == ok(admin(machine, "GET", "keys"))["count"]


def test_there_are_at_most_256(machine):
    """The last key that there is room for is made, the next is refused, and room comes back."""
    mine = []
    while (answer := admin(machine, "POST", "keys", {"name": "many", "role": "viewer"}))[0] == 200:
        mine.append(answer[1]["data"]["id"])
        assert len(mine) <= 256
    refused(answer, "QUEUE_FULL")
    assert ok(admin(machine, "GET", "keys"))["count"] == 256
    for number in mine:
        ok(admin(machine, "DELETE", f"keys/{number}"))
    ok(admin(machine, "DELETE", "keys/" + make(machine, "viewer")["id"]))


def test_only_hashes_are_kept(machine, place, keys):
    """Database, log, metrics and answers hold no key; the keys outlive the process, and those that were deleted do not come back."""
    gone = make(machine, "admin")
    ok(admin(machine, "DELETE", "keys/" + gone["id"]))
    assert machine.shim.stop() == []
    files = b"".join(p.read_bytes() for p in place.parent.iterdir())
    log = machine.shim.log_path.read_bytes()
    for kind in ("viewer", "operator", "admin", "expired", "off", "configuration"):
        assert keys[kind].encode() not in files and keys[kind].encode() not in log, kind
    with contextlib.closing(sqlite3.connect(place)) as db:
        assert all(re.fullmatch("[0-9a-f]{64}", row[0]) for row in db.execute("SELECT hash FROM keys"))
    machine.shim.start()
    machine.wait_shim_ready()
    assert [status_of(machine, keys[kind]) for kind in ("viewer", "operator", "admin", "expired", "off", "configuration")] == [200, 200, 200, 401, 401, 200]
    assert status_of(machine, gone["key"]) == 401
    assert keys["viewer"] not in machine.get("/metrics")[1]


def test_an_answer_belongs_to_its_key(machine, keys):
    """An Idempotency-Key that another API key has used gets nothing of what that one was told."""
    once = {"Idempotency-Key": "the-same"}
    first = post(machine, "motion/wait", {}, headers={**once, **key_header(keys["operator"])})
    again = post(machine, "motion/wait", {}, headers={**once, **key_header(keys["operator"])})
    assert again[1] == first[1] and again[2]["idempotency-replayed"] == "true"
    refused(post(machine, "motion/wait", {}, headers={**once, **key_header(keys["admin"])}), "INVALID_REQUEST")


def test_database_that_cannot_be_written(machine):
    """Nobody gets more than the database knows; what is taken away is taken away at once."""
    made = make(machine, "operator")
    with helpers.full_disk(machine):
        wait_for("it is seen", lambda: admin(machine, "POST", "keys", {"name": "no", "role": "viewer"})[1].get("error_code") == "DATABASE_UNAVAILABLE")
        refused(admin(machine, "POST", f"keys/{made['id']}/rotate"), "DATABASE_UNAVAILABLE")
        assert status_of(machine, made["key"]) == 200
        refused(admin(machine, "DELETE", f"keys/{made['id']}"), "DATABASE_UNAVAILABLE")
        assert status_of(machine, made["key"]) == 401
    wait_for("it is back", lambda: admin(machine, "POST", "keys", {"name": "yes", "role": "viewer"})[0] == 200)


# ---- wrong keys ----------------------------------------------------------------------------------------------------------------

def test_wrong_keys_slow_down_and_then_block_their_address(machine, keys, fresh_address):
    """Only wrong keys of that address: valid ones behind it pass, and other addresses are not touched."""
    address, took, codes = fresh_address(), [], []
    for i in range(BLOCK_AFTER + 2):
        began = time.monotonic()
        answer = get(machine, "status", headers=key_header(f"wrong {i}"), source=address)
        took.append(time.monotonic() - began)
        codes.append(answer[1]["error_code"])
        assert get(machine, "status", headers=key_header(keys["viewer"]), source=address)[0] == 200
    assert codes == ["INVALID_API_KEY"] * BLOCK_AFTER + ["IP_BLOCKED"] * 2
    assert int(answer[2]["retry-after"]) == 600 == int(answer[2]["x-ratelimit-retry-after"])
    for i, least in enumerate((0.25, 0.5, 1, 2, 2, 2, 2)):
        assert took[SLOW_AFTER + i] >= least
    assert get(machine, "status", headers=key_header(None), source=address)[1]["error_code"] == "AUTHORIZATION_REQUIRED", "no key is no wrong key"
    assert get(machine, "status", headers=key_header("wrong"), source=fresh_address())[1]["error_code"] == "INVALID_API_KEY"
    with pytest.raises(InvalidStatus) as refusal:
        Client(machine, additional_headers=key_header("wrong"), source_address=(address, 0))
    assert refusal.value.response.status_code == 429
    Client(machine, additional_headers=key_header(keys["viewer"]), source_address=(address, 0)).close()


def test_slow_answers_hold_nobody_else(machine, keys, fresh_address):
    """While wrong keys wait for their answers others are served, and a client that leaves is forgotten."""
    address = fresh_address()
    for _ in range(SLOW_AFTER):
        get(machine, "status", headers=key_header("wrong"), source=address)
    waiting = [helpers.Later(get, machine, "status", headers=key_header("wrong"), source=address) for _ in range(5)]
    conn = http.client.HTTPConnection("127.0.0.1", machine.port, source_address=(address, 0))
    conn.request("GET", "/api/v1/status", headers=key_header("wrong"))
    conn.close()
    for _ in range(20):
        assert status_of(machine, keys["viewer"]) == 200
    assert {later.answer(30)[0] for later in waiting} == {401}


def test_time_of_a_wrong_key_tells_nothing_of_the_right_one(machine, keys, fresh_address):
    """Pairs of wrong keys, one with all but the last character right and one with none, in random order on one connection. How often the nearer one took longer
    must be what chance gives: within 4.5 standard deviations of half of the pairs (chance itself fails once in 150,000 runs)."""
    pairs = 20000 if rig.long_run() else 2000
    right = keys["admin"]
    near, far = right[:-1] + ("A" if right[-1] != "A" else "B"), "".join(chr(ord("0") + ord(c) % 10) for c in reversed(right))
    conn = http.client.HTTPConnection("127.0.0.1", machine.port, source_address=(fresh_address(), 0))
    rng = random.Random(20261129)

    def ask(key):
        began = time.perf_counter_ns()
        conn.request("GET", "/api/v1/status", headers=key_header(key))
        answer = conn.getresponse()
        body = answer.read()
        return time.perf_counter_ns() - began, answer.status, body
    while ask(far)[1] != 429:  # from here on wrong keys are answered at once
        pass
    longer, times = 0, {near: [], far: []}
    for _ in range(pairs):
        order = [near, far]
        rng.shuffle(order)
        took = {}
        for key in order:
            took[key], status, _ = ask(key)
            assert status == 429
            times[key].append(took[key])
        longer += took[near] > took[far]
    conn.close()
    z = (longer - pairs / 2) / (pairs ** 0.5 / 2)
    print(f"pairs {pairs}, nearer took longer {longer}, z {z:.2f}, medians {statistics.median(times[near]) / 1000:.1f} and {statistics.median(times[far]) / 1000:.1f} us")
    assert abs(z) < 4.5


# ---- WebSockets ----------------------------------------------------------------------------------------------------------------

def websocket_status(machine, fresh_address, query="", key=None):
    """The status of a refused handshake; 101 when it was taken."""
    try:
        Client(machine, query, additional_headers={k: v for k, v in key_header(key).items() if v}, source_address=(fresh_address(), 0)).close()
    except InvalidStatus as e:
        body = json.loads(e.response.body)
        assert body["status"] == "error"
        return e.response.status_code
    return 101


@pytest.mark.parametrize("kind", KINDS)
def test_websocket_wants_a_key(machine, keys, kind, fresh_address):
    assert websocket_status(machine, fresh_address, key=keys[kind]) == (401 if isinstance(KINDS[kind], str) else 101)


def test_a_token_opens_one_websocket(machine, keys, fresh_address):
    told = ok(post(machine, "auth/ws_token", {}, headers=key_header(keys["viewer"])))
    assert told["expires_in"] == 5
    with Client(machine, "?token=" + told["token"], additional_headers={}) as c:
        assert c.execute("get_position")["status"] == "success"
        with pytest.raises(RpcFailed) as failed:
            c.execute("wait")
        assert failed.value.data["error_code"] == "PERMISSION_DENIED", "it has the role of the one who asked for it"
    assert websocket_status(machine, fresh_address, "?token=" + told["token"]) == 401, "once"
    for wrong in ("?token=", "?token=x", "?token=" + keys["admin"], "?token=" + "x" * 1000):
        assert websocket_status(machine, fresh_address, wrong) == 401, wrong


def test_one_who_may_only_look_fills_no_memory(machine, keys):
    """A viewer's requests are not remembered by their Idempotency-Key, so that he takes none from those who move the machine."""
    def remembered():
        return next(line for line in machine.get("/metrics")[1].splitlines() if line.startswith("klipperplace_idempotency_keys "))
    before, key = remembered(), {**key_header(keys["viewer"]), "Idempotency-Key": "a-viewers"}
    answers = [post(machine, "auth/ws_token", {}, headers=key) for _ in range(2)]
    assert len({ok(a)["token"] for a in answers}) == 2 and remembered() == before


def test_a_token_ends_after_five_seconds(machine, keys, fresh_address):
    token = ok(post(machine, "auth/ws_token", {}, headers=key_header(keys["viewer"])))["token"]
    time.sleep(5.2)
    assert websocket_status(machine, fresh_address, "?token=" + token) == 401


def token_of(machine, key):
    return ok(post(machine, "auth/ws_token", {}, headers=key_header(key)))["token"]


def test_tokens_of_a_key_are_few(machine, keys, fresh_address):
    """With the 17th the key's first one ends, and nobody else's."""
    other = "?token=" + token_of(machine, keys["operator"])
    first, second, *_ = ["?token=" + token_of(machine, keys["viewer"]) for _ in range(17)]
    assert [websocket_status(machine, fresh_address, query) for query in (first, second, other)] == [401, 101, 101]


def test_a_loop_of_tokens_ends_nobody_elses(machine, keys, fresh_address):
    """More of one key's than there is room for in all. Time may end the other's on a slow machine: then again."""
    for _ in range(5):
        began, other = time.monotonic(), "?token=" + token_of(machine, keys["operator"])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", machine.port)) as conn:
            for _ in range(300):
                conn.request("POST", "/api/v1/auth/ws_token", "{}", {"Content-Type": "application/json", **key_header(keys["viewer"])})
                assert (answer := conn.getresponse()).status == 200
                answer.read()
        status = websocket_status(machine, fresh_address, other)
        if time.monotonic() - began < 4.5:
            break
    assert status == 101


def test_an_ended_token_is_no_guess(machine, keys, fresh_address):
    """Who comes too late is no guesser of keys: his address is not blocked. What has not the form of a token counts."""
    used, address = "?token=" + token_of(machine, keys["viewer"]), fresh_address()
    assert websocket_status(machine, lambda: address, used) == 101
    assert {websocket_status(machine, lambda: address, used) for _ in range(BLOCK_AFTER + 1)} == {401}
    assert get(machine, "status", headers=key_header("wrong"), source=address)[1]["error_code"] == "INVALID_API_KEY"
    assert [websocket_status(machine, lambda: address, "?token=x") for _ in range(BLOCK_AFTER)][-1] == 429


@pytest.mark.parametrize("change", ["disable", "delete", "rotate"])
def test_a_session_ends_with_its_key(machine, change):
    made = make(machine, "operator")
    with Client(machine, additional_headers=key_header(made["key"])) as c:
        c.subscribe("position")
        one = "keys/" + made["id"]
        ok({"disable": lambda: admin(machine, "PUT", one, {"enabled": False}), "delete": lambda: admin(machine, "DELETE", one),
            "rotate": lambda: admin(machine, "POST", one + "/rotate")}[change]())
        with pytest.raises(ConnectionClosed) as closed:
            c.drain(20)
        assert closed.value.rcvd.code == 1008


def test_a_session_follows_the_role_of_its_key(machine):
    made = make(machine, "operator")
    with Client(machine, additional_headers=key_header(made["key"])) as c:
        assert c.execute("wait")["status"] == "success"
        ok(admin(machine, "PUT", "keys/" + made["id"], {"role": "viewer"}))
        with pytest.raises(RpcFailed) as failed:
            c.execute("wait")
        assert failed.value.data["error_code"] == "PERMISSION_DENIED"
    ok(admin(machine, "DELETE", "keys/" + made["id"]))


# ---- the command line ------------------------------------------------------------------------------------------------------------

def command(machine, *words, config=None):
    done = subprocess.run([rig.build_dir() / "shim" / "klipperplaced", "--config", config or machine.data / "config" / "klipperplace.cfg", "key", *words],
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_command_line(machine):
    code, out, err = command(machine, "add", "bench 2", "--role", "operator", "--expires", "2040-01-31")
    assert code == 0 and re.fullmatch(r"kp_[\w-]{43}\n", out), "the key alone, for a script to take"
    number = re.search(r"id ([0-9a-f-]{36})", err)[1]
    assert status_of(machine, out.strip()) == 200
    code, table, _ = command(machine, "list")
    line = next(text for text in table.splitlines() if number in text)
    assert code == 0 and "operator" in line and "2040-01-31" in line and "bench 2" in line and out.strip() not in table
    assert command(machine, "set", number, "--role", "viewer", "--enabled", "no", "--expires", "never", "--name", "new")[0] == 0
    assert status_of(machine, out.strip()) == 401
    assert command(machine, "set", number, "--enabled", "yes")[0] == 0
    code, second, _ = command(machine, "rotate", number)
    assert code == 0 and (status_of(machine, out.strip()), status_of(machine, second.strip())) == (401, 200)
    assert command(machine, "delete", number)[0] == 0
    assert status_of(machine, second.strip()) == 401
    code, _, err = command(machine, "delete", number)
    assert code == 1 and "no key has this id" in err


@pytest.mark.parametrize("words", [(), ("add",), ("add", "--role", "viewer"), ("add", "x", "--role"), ("add", "x", "--colour", "red"), ("add", "x", "--expires", "soon"),
                                   ("set", "x"), ("set", "../status", "--role", "viewer"), ("rotate",), ("delete", "a/b"), ("list", "all"), ("nothing",)])
def test_command_line_refuses(machine, words):
    code, out, err = command(machine, *words)
    assert code == 2 and not out and err


def test_command_line_tells_what_the_server_says(machine):
    code, out, err = command(machine, "add", "x", "--role", "root")
    assert code == 1 and not out and "role" in err


def test_the_command_lines_key(machine, place):
    """Its file is the server's alone, changes with each start and goes with the server; without a server the command says so."""
    cookie = place.with_name(place.name + ".cookie")
    assert stat.S_IMODE(os.stat(cookie).st_mode) == 0o600
    old = cookie.read_text()
    assert status_of(machine, old) == 200
    other = machine.data / "config" / "other.cfg"  # a second server on the same files: it gets neither port nor database
    text = rig.cfg_merge((machine.data / "config" / "klipperplace.cfg").read_text(), {"api": {"port": rig.free_port()}, "gcode_port": {"enabled": "false"}})
    other.touch(mode=0o600)
    other.write_text(text)
    with subprocess.Popen([rig.build_dir() / "shim" / "klipperplaced", "--config", other], stderr=subprocess.PIPE, text=True) as second:
        for line in second.stderr:
            if "serving" in line:
                break
        second.terminate()
    assert cookie.read_text() == old and status_of(machine, old) == 200
    assert machine.shim.stop() == []
    assert not cookie.exists()
    code, _, err = command(machine, "list")
    assert code == 1 and "does the server of this configuration run?" in err
    machine.shim.start()
    machine.wait_shim_ready()
    assert cookie.read_text() != old and status_of(machine, old) == 401


def test_without_a_database(tmp_path):
    config = tmp_path / "klipperplace.cfg"
    config.write_text("[api]\nport: 17999\n")
    code, _, err = command(None, "list", config=config)
    assert code == 1 and "[history] database" in err


def test_the_key_of_the_environment():
    """API_KEY is the key as it stands, an admin's, and does not get into the log."""
    key = "of the environment, with blanks"
    with rig.Rig(shim_env={"API_KEY": key, "API_KEY_ENABLED": "true", "LOG_LEVEL": "debug"}) as r:
        assert get(r, "status")[0] == 401
        r.key = key
        assert ok(get(r, "auth/status"))["role"] == "admin"
        assert key not in r.shim.log_path.read_text()


# ---- without keys --------------------------------------------------------------------------------------------------------------

def test_nobody_is_asked(tmp_path):
    """api_key_enabled: false: any key and none are the same, a key can be made for later, and it says that it ends with the process."""
    with rig.Rig() as r:
        assert get(r, "status", headers=key_header("anything"))[0] == 200
        told = ok(get(r, "auth/status"))
        assert told["enabled"] is False and told["role"] is None and told["keys"] == 0
        answer = post(r, "auth/keys", {"name": "later", "role": "viewer"})
        assert answer[0] == 200 and "end with this process" in answer[1]["warnings"][0]
        with Client(r, "?token=anything") as c:
            assert c.execute("wait")["status"] == "success"
