"""Root file systems made of stored layers: the backends, and the kernel's calls that they need."""
