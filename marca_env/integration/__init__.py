"""From a user's logs to an environment: what ``marca fit`` does.

A :class:`~marca_env.integration.mapping.Mapping` names the columns,
:func:`~marca_env.integration.logged_system.read_logged_system` reads the logs, and
:func:`~marca_env.integration.fit_system.fit_system` fits the models and writes a scenario folder with a report.
"""
