"""What it takes to unpack a layer."""
