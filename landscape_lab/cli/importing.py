"""``import``: checkpoints that somebody else saved become a run."""

from __future__ import annotations

from pathlib import Path

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import Command, json_option, numbers_of, show
from landscape_lab.errors import InputError

__all__ = ["import_checkpoints"]

EXAMPLE = """
landscape-lab import checkpoints/ --target my_project.py:make --out runs/mine
landscape-lab import epoch*.ckpt --target my_project.py:make --out runs/mine --prefix model.
"""


@cli.command("import", cls=Command, example=EXAMPLE)
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target",
    required=True,
    metavar="MODULE:FUNCTION",
    help="A function that returns (model, loss, batches): the model gives names and shapes, the batches class counts.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run directory to make.")
@click.option("--epochs", metavar="N,N,…", help="Epochs of the checkpoints, in order.  [default: by their names]")
@click.option("--prefix", metavar="TEXT", help="Keep only names that start so, without it, such as 'model.'.")
@click.option("--key", metavar="KEY", help="Where in a file the state dict is, such as state_dict or ema.params.")
@json_option
def import_checkpoints(
    checkpoints: tuple[Path, ...],
    target: str,
    out: Path,
    epochs: str | None,
    prefix: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Make a run of checkpoints, all or none of them.

    CHECKPOINTS are files, or folders of files, that end with .safetensors, .pt, .pth, .ckpt or .bin. They are read
    without unpickling: a file that needs it is refused, with the line that turns it into a state dict.
    """
    from landscape_lab.checkpoint_files import checkpoint_files
    from landscape_lab.importing import import_run
    from landscape_lab.target import load_target

    files = checkpoint_files(checkpoints)
    numbers = None if epochs is None else numbers_of("--epochs", epochs, "0,10,20")
    if not out.name:
        raise InputError("--out needs the name of a folder, such as runs/mine")
    with console.progress_bar("import", 2 * len(files), estimate=False) as advance:
        run = import_run(
            files, load_target(target), out, spec=target, epochs=numbers, prefix=prefix, key=key, progress=advance
        )
    info = run.info
    told = ("files", "epochs_from", "parameters", "class_counts", "class_names", "target")
    content = {name: info[name] for name in told}
    rows = [[epoch, name] for epoch, name in info["files"].items()]
    tail = ", ".join(info["class_names"][c] for c in info["subsets"]["tail"])
    show(
        as_json,
        {"run": str(run.path), **content},
        f"{run.path}: {len(files)} checkpoints, {len(info['parameters'])} parameter tensors, "
        f"{len(info['class_counts'])} classes",
        ["epoch", "checkpoint"],
        rows,
        caption=f"epochs by {info['epochs_from']}; tail: {tail}",
    )
