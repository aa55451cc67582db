"""What a user can type: one module for each verb."""
