"""Units of time that the packages share."""

MINUTES_PER_DAY = 1440
SECONDS_PER_MINUTE = 60.0
