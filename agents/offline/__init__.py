"""Request logs as training data; nothing here imports ray.

- :mod:`agents.offline.rows`: a log as compact rows (``load_rows``); start here.
- :mod:`agents.offline.episodes`: rows as episodes of a team.
- :mod:`agents.offline.chunks`: log files cut into chunks that are read one at a time.
- :mod:`agents.offline.splits`: training, validation and test rows.
- :mod:`agents.offline.shuffle_plan`: the order in which a log too large for memory is read.
"""
