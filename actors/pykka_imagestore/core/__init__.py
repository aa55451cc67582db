"""Pure values and plans: no disk, network, clock, thread or log."""
