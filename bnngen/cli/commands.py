# SPDX-License-Identifier: Apache-2.0
"""All commands in one group, and what becomes of their errors."""

from __future__ import annotations

import os
import sys

import click

from bnngen import __version__
from bnngen.cli import build, demo, device, model, operators, simulate, simulate_results, validating
from bnngen.cli.console import print_error
from bnngen.errors import BnngenError, UsageError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter is not ours

STEPS = """\b
  bnngen train quicknet-nano --data digits     Larq model       model.keras
  bnngen export model                          ordinary ONNX    model.onnx
  bnngen build --target rpi4                   C99, compiled    build/model-rpi4/
  bnngen validate --target rpi4 --data digits  the same bits everywhere
  bnngen learn --target rpi4 --data digits     new classes, on the device
  bnngen simulate --data digits --seeds 10     whole experiments on this computer
"""


@click.group(epilog=STEPS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bnngen")
@click.option("--debug", is_flag=True, help="Show the traceback behind an error.")
def cli(debug: bool) -> None:
    """Binary neural networks, from training to a small board that keeps learning."""


OTHERS = (simulate.simulate, simulate_results.results, validating.validate, operators.operators, demo.demo)

for command in (*model.COMMANDS, *build.COMMANDS, *device.COMMANDS, *OTHERS):
    cli.add_command(command)


def run(arguments: list[str]) -> None:
    """Run one command; the process ends with the error's exit code."""
    try:
        cli.main(args=arguments, prog_name="bnngen", standalone_mode=False)
    except (BnngenError, OSError) as error:
        if "--debug" in arguments:
            raise
        explained = error if isinstance(error, BnngenError) else _of_the_system(error)
        print_error(explained)
        sys.exit(explained.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except getattr(click.exceptions, "NoArgsIsHelpError", ()) as error:  # since click 8.2
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        print_error(_of_the_options(error))
        sys.exit(error.exit_code)
    except click.Abort as stop:  # what click makes of Ctrl-C
        raise KeyboardInterrupt from stop


def _of_the_system(error: OSError) -> BnngenError:
    """Explain what the operating system refused: a file in the way, no permission, a full disk."""
    return BnngenError(
        error.strerror or str(error),
        where=str(error.filename or ""),
        why="the operating system refused",
        fix="check that path: whether it exists, may be written, is a file or a folder, and the disk has room",
    )


def _of_the_options(error: click.ClickException) -> BnngenError:
    """Explain a command line that click could not read."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "bnngen"
    return UsageError(error.format_message().rstrip("."), where=command, fix=f"see {command} --help")
