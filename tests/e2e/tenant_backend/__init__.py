"""A database back end that sets its own search_path with each cursor, as those for tenants do."""
