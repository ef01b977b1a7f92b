# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document and docs/api.md: well formed, current, and true under requests that a generator draws from it.

Invariant: a drawn request is answered by the document, and with 5xx only where Klipper or Moonraker is the cause.
"""
import copy
import json
import os
import re
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

import rig
from contract import Contract, resolve
from helpers import ok, get, wait_for

# What schemathesis leaves out: homing and resets take seconds each and are shown by other tests, an emergency stop would have everything after it refused.
SLOW = ("home", "emergency_stop", "reset")
SHORT, LONG = 4, 300  # requests drawn for each operation
SEED = 20261123


@pytest.fixture(scope="module")
def contract(machine):
    return Contract(machine.get("/api/v1/openapi.json")[1])


def refs(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for v in node.values():
            yield from refs(v)
    elif isinstance(node, list):
        for v in node:
            yield from refs(v)


def test_document_is_well_formed(contract):
    doc = contract.doc
    assert doc["openapi"].startswith("3.1.")
    for ref in refs(doc):
        resolve(doc, {"$ref": ref})
    ids = [op["operationId"] for _, _, op in contract.operations()]
    assert len(ids) == len(set(ids)) > 40
    for method, path, op in contract.operations():
        assert op["summary"] and op["x-role"] in ("public", "viewer", "operator", "admin"), path
        assert {p for p in re.findall(r"{(\w+)}", path)} == {p["name"] for p in op["parameters"] if p.get("in") == "path"}
        for parameter in op["parameters"]:
            Draft202012Validator.check_schema(resolve(doc, parameter)["schema"])
        if "requestBody" in op:
            assert method in ("POST", "PUT")
            Draft202012Validator.check_schema(op["requestBody"]["content"]["application/json"]["schema"])
        for response in op["responses"].values():
            for media in resolve(doc, response)["content"].values():
                Draft202012Validator.check_schema(media["schema"])


def test_paths_of_the_document_are_served(machine, contract):
    """Each path knows the methods that the document tells, and says so of others."""
    for path, ops in contract.doc["paths"].items():
        status, body, headers = machine.request("PATCH", re.sub(r"{\w+}", "x", path))
        assert status == 405 and body["error_code"] == "METHOD_NOT_ALLOWED", path
        assert sorted(headers["allow"].split(", ")) == sorted(m.upper() for m in ops), path


def test_docs_are_current():
    """docs/api.md is what the binary prints."""
    out = subprocess.run([rig.build_dir() / "shim" / "klipperplaced", "--api-docs"], capture_output=True, text=True, check=True, timeout=120).stdout
    assert out == (rig.REPO / "docs" / "api.md").read_text(), "run: build/shim/klipperplaced --api-docs > docs/api.md"


def test_every_operation_is_in_the_docs(contract):
    text = (rig.REPO / "docs" / "api.md").read_text()
    for method, path, op in contract.operations():
        assert f"### {op['operationId']}\n`{method} {path}`\n" in text


# Names that this machine has, so that requests get past the look-up. No feeders: a drawn distance at a drawn feedrate is hours.
NAMES = {"pin": ["valve1", "output_pin valve2", "light", "PD0"], "sensor": ["vacuum1", "vacuum2"], "nozzle": ["N1", "N2"]}
# What the queue and batches are not drawn with: a queued homing would have all that follows wait for it, and moves find parts or none.
NOT_QUEUED = {"home", "pick", "place", "pick_and_place", "feeder_advance", "feeder_retract"}
CONFIG = """
hooks = "hooks"
[checks]
not_a_server_error.enabled = false
positive_data_acceptance.enabled = false
unsupported_method.enabled = false
ignored_auth.enabled = false
"""


# 5xx is for Klipper and Moonraker, or for a machine that failed: never for us.
HOOKS = """
import schemathesis

@schemathesis.check
def only_others_fail(ctx, response, case):
    if response.status_code >= 500 and response.status_code not in (502, 503, 504):
        code = response.json()["error_code"]
        assert response.status_code == 500 and code in ("VACUUM_FAILED", "EXECUTION_FAILED"), f"{response.status_code} {code}"
"""


def with_names(doc):
    """The document with the names of this machine in place of their patterns, with ramps that end soon, and without what is not queued here."""
    doc = copy.deepcopy(doc)
    for _, _, op in Contract(doc).operations():
        body = op.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {}).get("properties", {})
        for name, schema in [*body.items(), *((p["name"], p["schema"]) for p in op["parameters"] if "name" in p)]:
            if name in NAMES:
                schema.pop("pattern", None)
                schema["enum"] = NAMES[name]
            elif name == "command":
                schema["enum"] = [c for c in schema["enum"] if c not in NOT_QUEUED]
        if "duration" in body:
            body["duration"]["maximum"] = 0.3
    return doc


def test_drawn_requests(machine, contract, tmp_path):
    """schemathesis draws requests from the document, good and bad ones. What it may not find: a 5xx that is no upstream's, an answer, status, type or header
    that the document does not tell, wrong data taken as good."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "openapi.json").write_text(json.dumps(with_names(contract.doc)))
    count = LONG if rig.long_run() else SHORT
    leave_out = [a for name in SLOW for a in ("--exclude-operation-id", name)]
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", tmp_path / "openapi.json", "--url", machine.url, "--max-examples",
         str(count), "--seed", str(SEED), "--phases", "examples,coverage,fuzzing", "--request-timeout", "120", "--no-color", *leave_out],
        capture_output=True, text=True, timeout=3600 if rig.long_run() else 900, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    drawn = re.search(r"(\d[\d,]*) generated", run.stdout)
    print(run.stdout[-6000:])
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert drawn and int(drawn.group(1).replace(",", "")) >= count * 30
    assert wait_for("still serving", lambda: ok(get(machine, "status")))["safety"]["emergency_stop_active"] is False
