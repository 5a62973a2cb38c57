"""``marca bench report``: tables and figures of what was measured, as Markdown and as one HTML file."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""


def run(args: argparse.Namespace) -> int:
    """Not there yet."""
    raise NotImplementedError
