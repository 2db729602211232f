"""Decisions with their reasons: pure functions of a policy, of facts, and of the time."""
