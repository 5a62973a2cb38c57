"""The three logs: requests, costs and system.

:mod:`marca_env.logs.schema` defines their columns, :mod:`marca_env.logs.log_files` reads and writes them.
:mod:`marca_env.logs.published_samples` converts the samples published with the method, and
:mod:`marca_env.logs.raw_tables` reads a user's tables without interpreting them.
"""
