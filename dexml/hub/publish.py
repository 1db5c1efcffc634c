"""The command lines of `dexml export`, `dexml push` and `dexml import`. Light: libraries load when words are right."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dexml.hub.cardtext import Given
    from dexml.hub.package import Files


def export_command(words: Sequence[str]) -> None:
    """Writes a bundle with its model card into a folder."""
    parser = argparse.ArgumentParser(
        prog="dexml export", description="A folder to give away: model, labels, index, metrics and model card."
    )
    _add_source(parser)
    parser.add_argument("folder", type=Path, help="folder to write, which must not be there yet")
    parser.add_argument(
        "--add-labels", type=Path, help="file of new labels, one a line: a dual encoder reads their texts"
    )
    _add_card(parser)
    args = parser.parse_args(words)
    from dexml.data.textfile import Lines
    from dexml.hub.package import packed, write_package

    new = [] if args.add_labels is None else list(Lines(args.add_labels))
    with packed(args.source, str(args.folder), _given(args), new_labels=new) as files:
        write_package(files, args.folder)
        print(f"{args.folder}: {_summary(files)}")


def push_command(words: Sequence[str]) -> None:
    """Sends a bundle with its model card to the Hub."""
    parser = argparse.ArgumentParser(
        prog="dexml push", description="Send a bundle with its model card to the Hugging Face Hub, private unless told."
    )
    _add_source(parser)
    parser.add_argument("repo_id", help="owner/name on the Hub; made if it is not there")
    parser.add_argument("--public", action="store_true", help="let everybody see it")
    parser.add_argument("--dry-run", action="store_true", help="list the files and their sizes, send nothing")
    parser.add_argument("--message", default="Upload with dexml", help="of the commit")
    parser.add_argument("--revision", help="branch to send to (default: main)")
    _add_card(parser)
    args = parser.parse_args(words)
    from dexml.data.hubfolder import HubError
    from dexml.hub.package import packed, size_of
    from dexml.hub.push import push
    from dexml.hub.source import HUB_ID

    if not HUB_ID.fullmatch(args.repo_id):
        raise HubError(f"'{args.repo_id}' is no name for the Hub: it looks like 'owner/name'")
    with packed(args.source, args.repo_id, _given(args), on_hub=True) as files:
        print("".join(f"{size_of(content):>14,}  {name}\n" for name, content in files.items()), end="")
        print(f"{args.repo_id}: {_summary(files)}, {'public' if args.public else 'private'}")
        if not args.dry_run:
            private, where = not args.public, {"commit_message": args.message, "revision": args.revision}
            print(push(files, args.repo_id, private=private, **where))


def import_command(words: Sequence[str]) -> None:
    """Makes a bundle of a model and the texts of its labels."""
    parser = argparse.ArgumentParser(
        prog="dexml import",
        description="A bundle of a model that was trained elsewhere. Of a .pt file tensors are read, no code is run.",
        epilog="Other words are keys of the config, such as --tf_pooler cls --tf_max_len 32 --norm_embs false.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", help="DEXML's model.pt; a sentence-transformers or transformers model, folder or Hub id"
    )
    parser.add_argument("folder", type=Path, help="folder to write, which must not be there yet")
    parser.add_argument(
        "--config", type=Path, help="YAML the model was trained with (default: config.yaml beside a .pt)"
    )
    parser.add_argument("--labels", type=Path, help="label texts, one a line (default: raw/Y.txt of the config's data)")
    args, keys = parser.parse_known_args(words)
    from dexml.hub.importing import import_model

    n = import_model(args.model, args.folder, args.config, args.labels, keys)
    print(f"{args.folder}: {n:,} labels; try: dexml predict {args.folder} TEXT")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a run, a bundle such as the best/ folder of a run, or a Hub id")


def _add_card(parser: argparse.ArgumentParser) -> None:
    card = parser.add_argument_group("what only you know, for the model card of a run")
    card.add_argument("--license", help="of the model, as the Hub spells it: apache-2.0, cc-by-4.0, other")
    card.add_argument("--language", help="of the texts: en")
    card.add_argument("--dataset-id", help="Hub id of the data set")
    card.add_argument("--data-license", help="of the training data, in your words")


def _given(args: argparse.Namespace) -> Given:
    from dexml.hub.cardtext import Given

    return Given(args.license, args.language, args.dataset_id, args.data_license)


def _summary(files: Files) -> str:
    from dexml.hub.package import size_of

    return f"{len(files)} files, {sum(map(size_of, files.values())) / 1e6:.1f} MB"
