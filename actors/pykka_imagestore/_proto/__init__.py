"""Generated from proto/ by `make proto`; this file alone is written by hand."""
