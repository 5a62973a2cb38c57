"""From a table of ratings to a scenario of the live cascade: what ``marca fit --ratings`` does first.

:func:`~marca_env.integration.ratings.tables.read_ratings` reads the tables,
:func:`~marca_env.integration.ratings.factorisation.judge` and
:func:`~marca_env.integration.ratings.factorisation.factorise` fit users and items, and
:func:`~marca_env.integration.ratings.rated_scenario.build_rated_scenario` writes the folder with its report.
"""
