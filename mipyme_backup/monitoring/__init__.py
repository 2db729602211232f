"""What tells people how the backups are."""
