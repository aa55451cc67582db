"""What archives say of themselves, form by form. Pure."""
