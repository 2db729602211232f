"""What happens to bytes between a source and a destination, encryption apart."""
