"""What the comparison raises beside `InputError`."""


class RunFailed(Exception):
    """A run has failed; everything else is finished and written. The message is one line, for exit status 1."""
