"""`keel studio`: the web app for raters and leads, and what its administrator does from a terminal."""

import argparse
import contextlib
import getpass
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from keel.cli.render import columns, next_step, note, out
from keel.core.errors import ConfigError, KeelError

if TYPE_CHECKING:
    from keel.store.store import Store

DESCRIPTION = """Serve the studio, where raters judge pairs of answers and leads see how far they agree. Everything is
kept in one SQLite file, or in PostgreSQL. The first start prints a link that makes you its administrator."""

EPILOG = """examples:
  keel studio                                    http://127.0.0.1:8400, kept in studio.sqlite
  keel studio --db postgresql://keel@db/studio   PostgreSQL; keep the password in PGPASSWORD or ~/.pgpass
  keel studio demo                               a project with simulated votes to look around in"""

DB = "studio.sqlite"
DB_VARIABLE = "KEEL_STUDIO_DB"
EXTRA = {"fastapi", "uvicorn", "sqlalchemy", "alembic", "argon2", "markdown_it", "nh3", "jinja2", "starlette"}


def add(commands: Any) -> None:
    parser = commands.add_parser("studio", help="the web app for raters and leads", description=DESCRIPTION)
    parser.epilog = EPILOG
    _add_db(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8400, help="port to listen on (default: 8400)")
    parser.add_argument("--url", metavar="URL", help="what people open, where a proxy stands before the studio")
    parser.add_argument("--open", action="store_true", help="open it in your browser")
    parser.set_defaults(call=_explaining(serve), parser=parser)
    actions = parser.add_subparsers(metavar="ACTION", title="besides serving")
    _add_user(actions)
    demo = actions.add_parser("demo", help="make a project with simulated votes to look around in")
    _add_db(demo)
    demo.add_argument("--pairs", type=int, default=240, metavar="N", help="pairs in the project (default: 240)")
    demo.set_defaults(call=_explaining(make_demo), parser=demo)


def _add_db(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db",
        metavar="URL",
        default=argparse.SUPPRESS,
        help=f"a file or postgresql://... (default: ${DB_VARIABLE}, or {DB} in this folder)",
    )


def _add_user(actions: Any) -> None:
    user = actions.add_parser("user", help="accounts: add, list, password, erase")
    user.set_defaults(parser=user)
    doing = user.add_subparsers(metavar="ACTION", required=True, title="actions")
    adding = doing.add_parser("add", help="make an account; asks for its password")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("--email", metavar="ADDRESS")
    adding.add_argument("--admin", action="store_true", help="may do everything in the installation")
    adding.set_defaults(call=_explaining(add_user))
    listing = doing.add_parser("list", help="who has an account")
    listing.set_defaults(call=_explaining(list_users))
    password = doing.add_parser("password", help="set a new password; the user's sessions end")
    password.add_argument("name", metavar="NAME")
    password.set_defaults(call=_explaining(set_password))
    erasing = doing.add_parser("erase", help="forget who somebody is; their votes stay under the pseudonym")
    erasing.add_argument("name", metavar="NAME")
    erasing.add_argument("--yes", action="store_true", help="do not ask")
    erasing.set_defaults(call=_explaining(erase_user))
    for parser in (adding, listing, password, erasing):
        _add_db(parser)
        parser.set_defaults(parser=parser)


def _explaining(action: Any) -> Any:
    """The action, with a missing package named by the extra that has it."""

    def call(arguments: argparse.Namespace) -> None:
        try:
            action(arguments)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in EXTRA:
                raise
            raise ConfigError(
                f"keel studio needs {error.name}. Install it with: pip install 'keel-rlhf[studio]'"
            ) from error

    return call


def open_store(arguments: argparse.Namespace) -> "Store":
    from keel.store.store import Store

    return Store.open(getattr(arguments, "db", None) or os.environ.get(DB_VARIABLE) or DB)


def serve(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    from keel.studio.serve import serve as run
    from keel.studio.settings import StudioSettings

    settings = StudioSettings(host=arguments.host, port=arguments.port, public_url=arguments.url)

    def say(text: str) -> None:
        out(text)
        sys.stdout.flush()

    with open_store(arguments) as store:
        say(f"Votes are kept in {store.place}")
        with contextlib.suppress(KeyboardInterrupt):
            run(store, settings, say=say, open_browser=arguments.open)
        note("\nThe studio has stopped. Every vote that was acknowledged is kept.")


def make_demo(arguments: argparse.Namespace) -> None:
    """A project with simulated votes, and an account that leads it."""
    from keel.demo.studio_project import LEAD, NAME, make_project
    from keel.studio.auth import hash_password

    if not 40 <= arguments.pairs <= 5000:
        raise ConfigError(f"--pairs {arguments.pairs}: expected 40 to 5000.")
    password = secrets.token_urlsafe(12)
    with open_store(arguments) as store:
        pairs, votes = make_project(store, hash_password(password), pairs=arguments.pairs)
        place = store.place
    out(f"{place} has the project {NAME!r}: {pairs} pairs, {votes} votes of simulated raters.")
    out(f"Sign in as {LEAD!r} with the password {password}")
    next_step(f"keel studio --db {place} --open")


def add_user(arguments: argparse.Namespace) -> None:
    """A new account."""
    from keel.studio.auth import hash_password

    with open_store(arguments) as store:
        with store.reading() as tx:
            if tx.people.user_by_name(arguments.name) is not None:
                raise KeelError(f"There is a user called {arguments.name!r} already. Choose another name.")
        hashed = hash_password(asked_password())
        with store.writing() as tx:
            user = tx.people.create_user(
                arguments.name, now=time.time(), email=arguments.email, admin=arguments.admin, password_hash=hashed
            )
            tx.audit.add("create user", at=time.time(), target=f"user {user.id}", details={"admin": arguments.admin})
    out(f"{user.name} can sign in{' and administer the studio' if user.admin else ''}.")
    next_step("keel studio serves it; a lead takes people into projects on the page Raters")


def list_users(arguments: argparse.Namespace) -> None:
    with open_store(arguments) as store, store.reading() as tx:
        found = [user for user in tx.people.users() if not user.erased]
    rows = [
        [user.name, "admin" if user.admin else "", "" if user.active else "kept out", user.email or ""]
        for user in found
    ]
    out(columns(rows, indent="") if rows else "Nobody has an account yet.")


def set_password(arguments: argparse.Namespace) -> None:
    from keel.studio.auth import hash_password

    with open_store(arguments) as store:
        user_id = known_user(store, arguments.name)
        hashed = hash_password(asked_password())
        with store.writing() as tx:
            tx.people.set_password_hash(user_id, hashed)
            tx.access.end_sessions(user_id)
            tx.access.revoke_tokens(user_id, time.time())
            tx.audit.add("change user", at=time.time(), target=f"user {user_id}", details={"password": True})
    out(f"{arguments.name} has a new password and is signed out everywhere; API tokens are revoked.")


def erase_user(arguments: argparse.Namespace) -> None:
    with open_store(arguments) as store:
        user_id = known_user(store, arguments.name)
        if not arguments.yes:
            if not sys.stdin.isatty():
                raise ConfigError("Erasing cannot be taken back. Say that you mean it: --yes.")
            out(
                f"Name, e-mail, password, tokens and sessions of {arguments.name} will be gone for good. Type the name:"
            )
            if input().strip() != arguments.name:
                raise ConfigError("That is another name. Nobody was erased.")
        with store.writing() as tx:
            tx.people.erase(user_id, by=None, now=time.time())
        store.sweep()
    out(f"{arguments.name} is erased. The votes stay under the pseudonym.")


def known_user(store: "Store", name: str) -> int:
    with store.reading() as tx:
        user = tx.people.user_by_name(name)
    if user is None:
        raise KeelError(f"Nobody is called {name!r}. keel studio user list says who has an account.")
    return user.id


def asked_password() -> str:
    """Typed twice at a terminal, a line from a pipe."""
    from keel.studio.auth import LONGEST_PASSWORD, SHORTEST_PASSWORD

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise ConfigError("The two are not the same. Nothing was changed.")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; this has {len(password)}."
        )
    return password
