"""What every test process starts from."""

import signal


def pytest_configure() -> None:
    """Ctrl-C as in a terminal: a shell that starts us in the background passes on a deaf SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
