"""Wrong and hostile inputs as data, and tests that each ends in one line."""
