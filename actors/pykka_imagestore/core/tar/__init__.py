"""Reading tars. Pure: bytes come from a ``Source``."""
