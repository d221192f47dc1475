"""Commands of `python -m voxmill`, one module each, of the same name.

The first line of a module's docstring is its help. A module has two functions:
`add_arguments(parser)` says what the command takes, `run(options)` does it and returns the exit
status; a `VoxmillError` is printed as one message.
"""

COMMANDS = ("plan", "crop", "suggest", "check", "repair")
"""Names of the commands, in the order of the help."""
