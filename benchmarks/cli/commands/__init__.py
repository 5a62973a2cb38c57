"""The commands, a module each, with ``add_arguments(parser)`` and ``run(args)``.

A command of two words, such as ``marca bench run``, is ``bench_run``. A module is imported when its command is used, so
that ``marca --help`` is fast.
"""
