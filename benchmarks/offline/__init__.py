"""Training from the shipped request log, evaluated offline; several experiments are built on it.

``offline_runs`` trains and evaluates a method with the tuned settings of ``tuned.yaml``, ``offline_cases`` makes cases
of such runs, and ``offline_tables`` turns their rows into tables and learning curves.
"""
