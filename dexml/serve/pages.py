"""The two pages: one to try the models on, one about the API. Each is a single file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

_PARTS = re.compile(r"/\* (\w+\.\w+) \*/")


@cache
def web_page() -> str:
    """The page at /."""
    return _template("index.html")


def reference_page(openapi: dict[str, Any], url: str) -> str:
    """The page at /docs: an OpenAPI description of the service at `url`."""
    schemas = openapi["components"]["schemas"]
    operations = [
        _operation(path, method, operation, schemas, url)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    return _template("reference.html").replace("<!-- operations -->", "\n".join(operations))


def page_headers(html: str) -> dict[str, str]:
    """What keeps everything out of the page that is not in its file, and the page out of the frames of others."""
    sources = {
        tag: " ".join(map(_digest, re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL))) or "'none'"
        for tag in ("script", "style")
    }
    policy = [
        "default-src 'none'",
        *(f"{tag}-src {source}" for tag, source in sources.items()),
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


@cache
def _template(name: str) -> str:
    """A template with the files that it names put in."""
    folder = files("dexml.serve") / "templates"
    html = (folder / name).read_text(encoding="utf-8")
    return _PARTS.sub(lambda found: (folder / found[1]).read_text(encoding="utf-8"), html)


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any], url: str) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = schemas[body["$ref"].rsplit("/", 1)[1]] if body else {"properties": {}}
    needed = set(fields.get("required", ()))
    named = sorted(fields["properties"].items(), key=lambda field: field[0] not in needed)
    rows = [_row(name, field, name in needed) for name, field in named] + [
        _row(f"?{field['name']}=", {**field["schema"], **field}, field.get("required", False))
        for field in operation.get("parameters", ())
    ]
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    secret = " Needs the token." * ("security" in operation)
    return (
        f"<section><h2><b>{method.upper()}</b> {escape(path)}</h2>"
        f'<p class="lead">{escape(operation.get("description", ""))}{secret}</p>{table}'
        f"<pre>{escape(_curl(url.rstrip('/') + path, method, fields, bool(secret)))}</pre></section>"
    )


def _row(name: str, field: dict[str, Any], required: bool) -> str:
    kinds = [kind.get("type", "") for kind in field.get("anyOf", (field,)) if kind.get("type") != "null"]
    kind = " or ".join(f"list of {field['items']['type']}s" if one == "array" else one for one in kinds)
    default = "required" if required else f"default {json.dumps(field.get('default'))}"
    told = escape(field.get("description", ""))
    return f"<tr><th>{escape(name)}</th><td>{escape(kind)}, {escape(default)}</td><td>{told}</td></tr>"


def _curl(url: str, method: str, fields: dict[str, Any], secret: bool) -> str:
    words = ["curl"] + (["-X", method.upper()] if method == "delete" else [])
    if secret:
        words.append('-H "Authorization: Bearer $DEXML_TOKEN"')
    example = {name: field["examples"][0] for name, field in fields["properties"].items() if "examples" in field}
    if example:
        words.append(f"--json '{json.dumps(example)}'")
    return " ".join([*words, f"'{url}{'?id=3' if method == 'delete' else ''}'"])
