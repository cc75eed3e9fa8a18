"""The one kind of error that a command turns into one line and exit status 2."""


class InputError(ValueError):
    """What the user gave cannot be used: the message names it, what came and what was expected, in one line."""
