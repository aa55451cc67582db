"""What it takes to check a stored layer."""
