"""The group that all commands belong to, and what becomes of their errors."""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

import click

from landscape_lab import console
from landscape_lab.errors import InputError
from landscape_lab.version import __version__

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="landscape-lab")
def cli() -> None:
    """Why does my model forget its rare classes, and what does the loss landscape say about it?

    Train on long-tailed data, then look at the landscape of any subset of classes: curvature, surfaces,
    trajectories, gradient similarity, feature quality. Start with:

        landscape-lab reproduce
    """


def main() -> NoReturn:
    """Run the command line; a wrong input ends in one line and exit code 2, Ctrl-C in 130."""
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        console.note("stopped; the same command goes on from the last complete epoch")
        sys.exit(130)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "landscape-lab"
        _fail(f"{error.format_message()} See '{where} --help'.")
    except click.ClickException as error:
        _fail(error.format_message())
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        reason = f"cannot write {error.filename}: {error.strerror}" if error.filename else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason += "; no file is half-written: make room and run the same command again"
        _fail(reason)
    sys.exit(0)


def _fail(reason: str) -> NoReturn:
    console.note("error: " + " ".join(reason.split()))
    sys.exit(2)
