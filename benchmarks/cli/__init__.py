"""The ``marca`` command.

:mod:`benchmarks.cli.parsers` lists the commands and builds their parsers, :mod:`benchmarks.cli.main` runs one. Every
command is a module with ``add_arguments(parser)`` and ``run(args)``; a command of two words, such as ``marca bench
run``, is ``bench_run``. A module is imported when its command is used, so that ``marca --help`` is fast.
"""
