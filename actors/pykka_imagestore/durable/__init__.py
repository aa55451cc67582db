"""Write, sync, rename: the only code that makes anything last."""
