"""What is done with one container, in a thread: it is made, removed, found again after a crash, exported."""
