"""The one exception that stands for a mistake in what the user asked for."""


class UserError(ValueError):
    """What was asked for cannot be done; the message names the flag and the mend.

    The command line prints the message alone and exits with code 2. Library callers can
    catch it as a `ValueError`.
    """
