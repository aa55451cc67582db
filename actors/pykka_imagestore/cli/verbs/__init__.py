"""What a user can type: one module for each verb, with ``run(options)``. ``cli/arguments.py`` lists their options."""
