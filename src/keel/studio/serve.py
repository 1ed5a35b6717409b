"""One process that serves the studio until it is stopped."""

import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import closing

import uvicorn

from keel.core.errors import ConfigError
from keel.store.store import Store
from keel.studio.app import create_app
from keel.studio.auth import new_secret, secret_hash
from keel.studio.settings import StudioSettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHUTDOWN_S = 0.5
"""How long requests in progress may take to end once the server is told to stop."""
FIRST_LINK_S = 86_400.0
OPEN_WARNING = """Listening on {host}: everyone who can reach this machine can reach the studio, and without TLS their
passwords and votes can be read on the way. On a network that is not yours alone, put a proxy with TLS before it
(Caddy, nginx) and give its address with --url https://..."""


def serve(store: Store, settings: StudioSettings, *, say: Callable[[str], None], open_browser: bool = False) -> None:
    """Answer requests until SIGINT or SIGTERM; `say` tells people where to go."""
    with closing(listen(settings)) as listening:
        if settings.host not in LOOPBACK:
            say(OPEN_WARNING.format(host=settings.host))
        link = first_admin(store, settings)
        if link:
            say(f"Nobody is here yet. This link makes you the administrator; it works once, for a day:\n  {link}")
        say(f"The studio is at {settings.url}  (Ctrl-C stops it)")
        config = uvicorn.Config(
            create_app(store, settings),
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=75,  # raters think between requests
            timeout_graceful_shutdown=1,
        )
        if open_browser:
            threading.Timer(0.3, webbrowser.open, [link or settings.url]).start()
        uvicorn.Server(config).run(sockets=[listening])


def listen(settings: StudioSettings) -> socket.socket:
    """The socket to answer on. ConfigError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(512)  # at once, so that who connects from now on is answered as soon as the server runs
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}). Another studio may be running "
            "there; choose another with --port."
        ) from error
    return listening


def first_admin(store: Store, settings: StudioSettings) -> str | None:
    """The link of somebody's first visit, where nobody can administer the studio yet; each start makes a new one."""
    secret, now = new_secret(), time.time()
    with store.writing() as tx:
        if tx.people.any_admin():
            return None
        for old in tx.access.invites(None, now):
            tx.access.revoke_invite(old.id, None)
        tx.access.create_invite(None, "admin", secret_hash(secret), by=None, now=now, expires=now + FIRST_LINK_S)
    return f"{settings.url}/invite/{secret}"
