# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document as a judge of answers, for the tests in this folder.

Invariant: stricter than the document that clients get: a field that it does not tell is a fault, so that a field cannot be written without its row.
"""
import copy

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

URI = "urn:openapi"
OPEN = {"details"}  # objects that may hold more than is told


def _closed(schema, name=None):
    """The schema with every object that tells its properties closed for others."""
    if isinstance(schema, list):
        return [_closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: {n: _closed(s, n) for n, s in v.items()} if k == "properties" else _closed(v) for k, v in schema.items()}
    if "properties" in out and "type" in out and name not in OPEN:
        out.setdefault("additionalProperties", False)
    return out


def resolve(doc, node):
    """The node, or what its $ref names."""
    while "$ref" in node:
        target = doc
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


class Contract:
    """Judges answers by one document."""

    def __init__(self, doc):
        self.doc = doc
        strict = copy.deepcopy(doc)
        for ops in strict["paths"].values():
            for op in ops.values():
                op["responses"] = _closed(op["responses"])
        strict["components"] = _closed(strict["components"])
        self.strict = strict
        self.registry = Registry().with_resource(URI, Resource(contents=strict, specification=DRAFT202012))
        self.seen = set()  # (operation, error code or "OK") of the answers judged

    def operations(self):
        """(method, path, operation) of all, in the document's order."""
        return [(method.upper(), path, op) for path, ops in self.doc["paths"].items() for method, op in ops.items()]

    def find(self, method, path):
        """The path of the document and the operation that a request belongs to."""
        path = path.split("?")[0]
        for known, ops in self.strict["paths"].items():
            want, got = known.split("/"), path.split("/")
            if len(want) == len(got) and all(w == g or w[:1] == "{" for w, g in zip(want, got)) and method.lower() in ops:
                return known, ops[method.lower()]
        raise AssertionError(f"the document has no {method} {path}")

    def judge(self, method, path, answer):
        """Fails when status, type, headers or body of an answer are not as the document says. Returns the answer."""
        status, body, headers = answer
        known, op = self.find(method, path)
        assert str(status) in op["responses"], f"{method} {path}: the document does not tell of status {status}: {body}"
        response = resolve(self.strict, op["responses"][str(status)])
        media = headers["content-type"].split(";")[0]
        assert media in response["content"], f"{method} {path}: {media}"
        for name, told in response.get("headers", {}).items():
            assert name.lower() in headers or not resolve(self.strict, told)["required"], f"{method} {path}: no header {name}"
        code = str(status) if "$ref" in op["responses"][str(status)] else None
        at = f"#/components/responses/Error{code}" if code else f"#/paths/{known.replace('~', '~0').replace('/', '~1')}/{method.lower()}/responses/{status}"
        schema = {"$ref": f"{URI}{at}/content/{media.replace('/', '~1')}/schema"}
        errors = list(Draft202012Validator(schema, registry=self.registry, format_checker=FormatChecker()).iter_errors(body))
        assert not errors, f"{method} {path} {status}: " + "; ".join(f"{e.json_path}: {e.message}" for e in errors[:4])
        self.seen.add((op["operationId"], body.get("error_code", "OK") if isinstance(body, dict) else "OK"))
        return answer
