"""`dexml`: prepare, validate, tokenize, train, eval, predict. Heavy libraries load only when a command needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

USAGE = """dexml COMMAND ...

  prepare iconclass [--root Datasets]             make the built-in data set (needs: pip install 'dexml[demo]')
  validate FOLDER                                 check a data folder and say what is in it
  tokenize --data-path FILE --tf-max-len N --tf-token-type NAME
  train CONFIG.yaml [MORE.yaml] [--key value]     train, evaluate, export; `dexml train --help` lists every key
  eval trn|val|tst|dev CONFIG.yaml [--key value]  evaluate the exported model of a run
  predict BUNDLE [--top-k 5] [TEXT ...]           labels for texts, or for the lines of standard input
  index BUNDLE --kind ivf [--recall 0.99]         another kind of index over the labels; `dexml index --help`
  report RUN [RUN ...] [--out FOLDER]             one HTML page about a run, or several side by side

Several processes: accelerate launch --config_file configs/accelerate.yaml --num_processes N train.py CONFIG.yaml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it worked, 2 after an error the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        from dexml import __version__

        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"dexml: no command '{words[0]}'; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return guarded(lambda: COMMANDS[words[0]](words[1:]))


def guarded(work: Callable[[], None]) -> int:
    """Runs `work`; an error in what the user gave is told in its own words, without a traceback."""
    try:
        work()
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"rank {rank}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped (training goes on from its newest checkpoint with the same command)", file=sys.stderr)
        return 130
    return 0


def _is_ours(error: Exception) -> bool:
    """Raised on purpose by this package (or a full disk), not a bug on the way."""
    return type(error).__module__.startswith("dexml.") or isinstance(error, OSError | FloatingPointError)


def train(words: Sequence[str]) -> None:
    from dexml.config import config_help, load_config, parse_command_line

    if not words or {"-h", "--help"} & set(words):
        print("dexml train CONFIG.yaml [MORE.yaml] [--key value ...]\n")
        print(config_help())
        return
    cfg = load_config(*parse_command_line(words))
    from dexml.distributed import leave
    from dexml.training.trainer import Trainer

    try:
        trainer = Trainer(cfg)
        metrics = trainer.fit()
        if trainer.world.is_main:
            from dexml.evaluation.table import metrics_table

            print(metrics_table({cfg.expname: metrics}))
    finally:
        leave()


def evaluate(words: Sequence[str]) -> None:
    from dexml.config import ConfigError, load_config, parse_command_line

    usage = "dexml eval trn|val|tst|dev CONFIG.yaml [--key value ...]"
    if {"-h", "--help"} & set(words):
        print(usage)
        return
    if len(words) < 2 or words[0] not in ("trn", "val", "tst", "dev"):
        raise ConfigError(f"usage: {usage}")
    cfg = load_config(*parse_command_line(words[1:]))
    from dexml.distributed import leave
    from dexml.evaluation.table import metrics_table
    from dexml.training.evaluate import evaluate_run

    try:
        metrics = evaluate_run(cfg, words[0])
        if metrics is not None:
            print(metrics_table({f"{cfg.expname} ({words[0]})": metrics}))
    finally:
        leave()


def tokenize(words: Sequence[str]) -> None:
    from dexml.data.command import tokenize_command

    tokenize_command(words)


def prepare(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="dexml prepare", description="Make a built-in data set.")
    parser.add_argument("name", choices=["iconclass"])
    parser.add_argument("--root", type=Path, default=Path("Datasets"), help="folder of the data sets")
    args = parser.parse_args(words)
    from dexml.data.files import DataError
    from dexml.data.formats import prepare_iconclass

    try:
        args.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--root {args.root}: cannot make that folder ({error})") from error
    if not os.access(args.root, os.W_OK | os.X_OK):
        raise DataError(f"--root {args.root}: no write permission: name another folder")

    print(prepare_iconclass(args.root))


def validate(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="dexml validate", description="Check a data folder.")
    parser.add_argument("folder", type=Path)
    from dexml.data.dataset import Dataset

    for notice in Dataset.load(parser.parse_args(words).folder).notices:
        print(notice)


def index(words: Sequence[str]) -> None:
    from dexml.index.command import index_command

    index_command(words)


def predict(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="dexml predict", description="The best labels of each text.")
    parser.add_argument("bundle", type=Path, help="the best/ folder of a run")
    parser.add_argument("texts", nargs="*", help="texts; without any, one a line from standard input")
    parser.add_argument("--top-k", type=int, default=5, help="labels of each text")
    args = parser.parse_args(words)
    if args.top_k < 1:
        parser.error(f"--top-k is {args.top_k}: expected 1 or more")
    from dexml.hub.bundle import Bundle

    bundle = Bundle.load(args.bundle)
    texts = _checked_texts(args.texts)
    for text, found in zip(texts, bundle.predict(texts, args.top_k), strict=True):
        print(text)
        for label, score in found:
            print(f"  {score:.3f}  {label}")


def report(words: Sequence[str]) -> None:
    from dexml.report.command import report_command

    report_command(words)


def _checked_texts(given: Sequence[str]) -> list[str]:
    """The texts of the command line or, without any, the lines of standard input; DataError names a bad one."""
    from dexml.data.files import DataError

    texts = list(given)
    for number, line in enumerate([] if given else sys.stdin.buffer, start=1):
        try:
            texts.append(line.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise DataError(f"standard input:{number}: not valid UTF-8 (byte 0x{line[error.start]:02x})") from None
    blank = next((number for number, text in enumerate(texts, start=1) if not text.strip()), None)
    if blank is not None:
        raise DataError(f"{'text ' if given else 'standard input:'}{blank}: an empty text has no labels; leave it out")
    if not texts:
        raise DataError("no texts: give them after the bundle, or one a line on standard input")
    return texts


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "prepare": prepare,
    "validate": validate,
    "tokenize": tokenize,
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "index": index,
    "report": report,
}


if __name__ == "__main__":
    sys.exit(main())
