"""Experiment ``task_ablation``: AWRQMixerV2 without each of its parts, and with parts that it leaves out."""
