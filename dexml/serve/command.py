"""The command line of `dexml serve`. Light: the libraries load when the words are known to be right."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dexml.data.files import DataError

TOKEN = "DEXML_TOKEN"
SHORTEST = 16  # characters of a token
# Read when torch and faiss compute first; what the user has set stays.
SETTINGS = {
    # Threads of a call wait for one another by spinning: beside other work two may take 40 times as long as one.
    "OMP_NUM_THREADS": "1",
    # Texts differ in length, so nearly every call has new shapes; what is kept for 1,024 of them would fill a gigabyte.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}


def serve_command(words: Sequence[str]) -> None:
    """Serves the models until SIGINT or SIGTERM, then answers what it has taken and ends."""
    args = _parse(words)
    token, chosen = read_token(args.token_file), named(args.models)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    log = logging.getLogger("dexml")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler())
    with listen(args.host, args.port) as place:  # a port that is taken is told before a model is loaded
        from dexml.serve.limits import Limits
        from dexml.serve.run import serve
        from dexml.serve.served import Served

        limits = Limits(
            body=args.max_body, texts=args.max_texts, chars=args.max_chars, labels=args.max_labels,
            waiting=args.max_waiting, rate=args.rate,
        )  # fmt: skip
        models = [Served.load(source, name, limits.labels, args.texts, args.amp) for name, source in chosen.items()]
        place.listen()  # from here on clients may connect; they are answered once the loop runs
        host, port = place.getsockname()[:2]
        print(f"serving {', '.join(model.name for model in models)} on http://{host}:{port} (API: /docs)", flush=True)
        serve(models, limits, token, place)


def named(sources: Sequence[str]) -> dict[str, str]:
    """A name for each model: the last part of its path or Hub id, `best` left out; of equal ones the last two.

    Raises:
        DataError: the same name twice.
    """
    parts = [[part for part in Path(source).absolute().parts if part != "best"] for source in sources]
    counts = Counter(names[-1] for names in parts)
    names = ["/".join(words[-2:]) if counts[words[-1]] > 1 else words[-1] for words in parts]
    if len(set(names)) < len(names):
        raise DataError(f"two models would be called {Counter(names).most_common(1)[0][0]}: rename a folder")
    return dict(zip(names, sources, strict=True))


def read_token(file: Path | None) -> str | None:
    """The token of the file or of the environment; None: label changes are off.

    Raises:
        DataError: no such file, or a token that is too short or has characters that a header cannot carry.
    """
    if file is not None and not file.is_file():
        raise DataError(f"{file}: no such file: write the token into it")
    token = os.environ.get(TOKEN) if file is None else file.read_text(encoding="utf-8").strip()
    if token is None:
        return None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise DataError(
            f"{file or TOKEN}: the token must be {SHORTEST} or more ASCII characters without spaces; "
            f"`openssl rand -hex 32` makes one"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to host and port, not yet listening; port 0: any free one.

    Raises:
        DataError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind, protocol)  # asyncio sends without delay only where the protocol is named
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except OSError as error:
        raise DataError(f"cannot serve on {host}:{port} ({error.strerror}): choose another --host or --port") from error
    return place


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexml serve",
        description="HTTP service of one or several models, with a page to try them on.",
        epilog=f"Labels can be added and removed with a token, in the environment ({TOKEN}) or a file.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="runs, bundles or Hub ids")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for others than this machine too (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (%(default)s)")
    parser.add_argument("--texts", type=Path, metavar="DATA", help="data folder or text file: near texts are shown")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token for label changes")
    parser.add_argument("--amp", action="store_true", help="half precision where the processor has it")
    limits = parser.add_argument_group("limits")
    for name, kind, default, text in (
        ("rate", float, 0.0, "requests a second of one client, 0: any number"),
        ("max-waiting", int, 1024, "texts that wait; more are answered 429"),
        ("max-body", int, 1 << 20, "bytes of a request"),
        ("max-texts", int, 256, "texts of a request"),
        ("max-chars", int, 20_000, "characters of a text"),
        ("max-labels", int, 100, "labels of a text"),
    ):
        limits.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (%(default)s)")
    args = parser.parse_args(words)
    for name in ("max_waiting", "max_body", "max_texts", "max_chars", "max_labels"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}: expected 1 or more")
    if not 0 <= args.rate < float("inf"):
        parser.error(f"--rate is {args.rate}: expected 0 or more")
    if not 0 <= args.port < 1 << 16:
        parser.error(f"--port is {args.port}: expected 0 to 65535")
    return args
