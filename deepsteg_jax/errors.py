"""The exceptions for faults that a user can mend."""


class UserError(Exception):
    """Something the user gave is wrong.

    The message is one line that says what is wrong and what to do about it. `main.py` prints it on
    stderr and exits with 1; no traceback is shown.
    """


class PartialError(Exception):
    """A job read a damaged input as far as possible and wrote that.

    The message is one line that says how far it got. `main.py` prints it on stderr and exits with 3.
    """
