"""`dexml`: the console script. Heavy libraries load only when a command needs them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

USAGE = """dexml COMMAND ...

  prepare iconclass | icd10cm | synthetic [DEST]  make a built-in data set (the first two: pip install 'dexml[demo]')
  prepare SOURCE DEST [--format F]                make a data folder of yours; `dexml prepare --help` lists formats
  validate FOLDER [--tf NAME] [--html FILE]       check a data folder and say what is in it; `dexml validate --help`
  convert FOLDER DEST --to FORMAT                 hf | beir | libmultilabel | csv from a data folder
  tokenize --data-path FILE --tf-max-len N --tf-token-type NAME
  train CONFIG.yaml [MORE.yaml] [--key value]     train, evaluate, export; `dexml train --help` lists every key
  eval trn|val|tst|dev RUN|BUNDLE|CONFIG.yaml     evaluate an exported model; `dexml eval --help`
  predict MODEL [--top-k 5] [TEXT ...]            labels for texts, standard input or a table; `dexml predict --help`
  index BUNDLE --kind ivf [--recall 0.99]         another kind of index over the labels; `dexml index --help`
  serve RUN|BUNDLE [...] [--texts DATA]           HTTP service with a page to try it on; `dexml serve --help`
  ensemble RUN RUN [RUN ...] [--out FOLDER]       several models as one, from their stored predictions
  uncertainty RUN [RUN ...] [--ood FILE]          how unsure an ensemble is, and of what; `dexml uncertainty --help`
  report RUN [RUN ...] [--out FOLDER]             one HTML page about a run, or several side by side
  export RUN FOLDER                               a folder to give away: model, labels, index, metrics, model card
  import MODEL FOLDER [--labels FILE]             a bundle of DEXML's model.pt or a sentence-transformers model
  push RUN OWNER/NAME [--dry-run] [--public]      the same to the Hugging Face Hub; `dexml push --help`

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
    return guarded(lambda: run(words[0], words[1:]), words[0])


def guarded(work: Callable[[], None], command: str = "train") -> int:
    """Runs the work of a command; an error in what the user gave is told in its own words, without a traceback."""
    try:
        work()
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"rank {rank}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        more = " (training goes on from its newest checkpoint with the same command)" * (command == "train")
        print(f"stopped{more}", file=sys.stderr)
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


def prepare(words: Sequence[str]) -> None:
    from dexml.data.builtin import BUILTIN, prepare_builtin

    if words and words[0] in BUILTIN:
        print(prepare_builtin(words))
        return
    from dexml.data.convert.command import prepare_command

    prepare_command(words)


COMMANDS = {
    "prepare": "dexml.cli:prepare",
    "validate": "dexml.data.command:validate_command",
    "convert": "dexml.data.write.command:convert_command",
    "tokenize": "dexml.data.command:tokenize_command",
    "train": "dexml.cli:train",
    "eval": "dexml.training.command:eval_command",
    "predict": "dexml.predict.command:predict_command",
    "index": "dexml.index.command:index_command",
    "serve": "dexml.serve.command:serve_command",
    "ensemble": "dexml.training.ensemble:ensemble_command",
    "uncertainty": "dexml.hub.uncertainty:uncertainty_command",
    "report": "dexml.report.command:report_command",
    "export": "dexml.hub.publish:export_command",
    "import": "dexml.hub.publish:import_command",
    "push": "dexml.hub.publish:push_command",
}
"""module and function of each command, imported when it is asked for"""


def run(name: str, words: Sequence[str]) -> None:
    module, _, function = COMMANDS[name].partition(":")
    getattr(importlib.import_module(module), function)(words)


if __name__ == "__main__":
    sys.exit(main())
