"""What workers answer."""
