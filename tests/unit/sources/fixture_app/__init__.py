"""Models that are hard to write to a fixture, and databases to try them on."""
