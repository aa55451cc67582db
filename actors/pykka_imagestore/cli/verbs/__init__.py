"""What a user can type: one module for each verb, with ``run(options)``.

``cli/verb_arguments.py`` lists the verbs and their options; ``cli/command.py`` runs the module of a verb's name.
"""
