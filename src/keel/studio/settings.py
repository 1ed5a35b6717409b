"""How the studio behaves: addresses, sessions and limits."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class StudioSettings:
    """Limits are held in memory, a set for each process; they start afresh with it."""

    host: str = "127.0.0.1"
    port: int = 8400
    public_url: str | None = None
    """What people open where that is not http://host:port, as behind a proxy; with https cookies are Secure."""
    session_days: float = 14.0
    """How long somebody stays signed in."""
    invite_days: float = 14.0
    login_attempts: int = 10
    """Failed logins of one name, or from one address, within `login_window_s`; then the next must wait."""
    login_window_s: float = 300.0
    requests_per_s: float = 50.0
    """Of one account, on average; and of one address without an account."""
    requests_burst: int = 200
    """Requests that may come at once before `requests_per_s` counts."""
    max_body: int = 2 * MIB
    """Bytes of a request: the longest guide in any script, sent as a form."""
    max_import: int = 64 * MIB
    """Bytes of a request that imports items."""

    @property
    def url(self) -> str:
        """Where people open the studio, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether cookies travel over TLS only."""
        return self.url.startswith("https://")
