"""What a worker opens and reads of an archive."""
