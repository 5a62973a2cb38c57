"""The ``marca`` command.

:mod:`benchmarks.cli.parsers` lists the commands and builds their parsers, :mod:`benchmarks.cli.main` runs one.
:mod:`benchmarks.cli.commands` has a module for each command.
"""
