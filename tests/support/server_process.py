"""The process behind :mod:`tests.support.server`: migrates, then serves until it is told to stop.

It also stops when its standard input closes, which happens however the tests end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from counterfoil.db.migrate import migrate
from counterfoil.server import serve
from counterfoil.settings import Settings
from tests.support.network import stay_on_loopback


def _stop_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    stay_on_loopback()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    settings = Settings()
    migrate(settings.database_url)
    serve(settings)


if __name__ == "__main__":
    main()
