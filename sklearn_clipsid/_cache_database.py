"""Keep the file of the embedding cache usable, or do without it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from sklearn_clipsid._network_drive import is_network_drive
from sklearn_clipsid._warn_user import warn_user

Answer = TypeVar("Answer")

# A change of the tables gets a file of its own, beside which older ones are left alone.
FORMAT = "embeddings-v1"
TABLES = (
    """CREATE TABLE IF NOT EXISTS rows (
        setting BLOB NOT NULL, content BLOB NOT NULL, row BLOB NOT NULL,
        checksum INTEGER NOT NULL, PRIMARY KEY (setting, content))""",
    """CREATE TABLE IF NOT EXISTS files (
        path BLOB PRIMARY KEY, stamp TEXT NOT NULL, content BLOB NOT NULL,
        checksum INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS encoders (
        identity TEXT PRIMARY KEY, description TEXT NOT NULL,
        checksum INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS counts (
        name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID""",
    # Who is embedding what.
    """CREATE TABLE IF NOT EXISTS claims (
        setting BLOB NOT NULL, content BLOB NOT NULL, owner TEXT NOT NULL,
        since REAL NOT NULL, PRIMARY KEY (setting, content)) WITHOUT ROWID""",
)
# Several rows of a ViT fit into one page.
PAGE_BYTES = 16384
# Writers wait for one another; a transaction takes milliseconds.
BUSY_SECONDS = 60.0
# The file is there but not what this module wrote.
DAMAGE = {
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_TOOBIG,
}
# A disk that damages one file after the other is of no use.
MAX_SET_ASIDE = 3


class DamagedValueError(Exception):
    """A value in the database is not the one that was written."""


# SQLite quotes a damaged schema in its message, which is no text then.
FAILURES = (sqlite3.DatabaseError, DamagedValueError, UnicodeDecodeError)


class _Opened(NamedTuple):
    path: str
    connection: sqlite3.Connection


class CacheDatabase:
    """A SQLite file in a folder, replaced by a new one when it is damaged.

    Parameters
    ----------
    folder : str or PathLike
        Where the file lies; created when missing.

    Attributes
    ----------
    path : str
        The file in use.

    can_write : bool
        False once writing has failed.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self.path = ""
        self.can_write = True
        self._can_read = True
        self._ignores_log = False
        self._is_network = False
        self._stem = FORMAT
        self._is_named = bool(os.fspath(folder))
        self._n_set_aside = 0
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, _Opened] = {}
        self._unsaid: list[str] = []

    def is_there(self) -> bool:
        """Return whether there is a file yet, without creating anything."""
        if self._is_named and not os.path.lexists(self.folder):
            return False
        self._find()
        return os.path.exists(self.path)

    def open(self) -> None:
        """Find or create the file."""
        if self._is_named:
            with _worded_errors(self.folder):
                os.makedirs(self.folder, exist_ok=True)
        self._find()
        if self._is_network:
            self._say(
                f"cache_dir={self.folder!r} lies on a network drive, where a database "
                "is slow and must not be shared between hosts: each host gets a file "
                "of its own there. Choose a folder on a local disk."
            )
        self.ask(lambda connection: None, None)

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            while self._connections:
                self._connections.popitem()[1].connection.close()
        self._speak()

    def _find(self) -> None:
        if not self._is_named:
            raise ValueError(
                "Got cache_dir='' but expected a folder; pass '.' for this one."
            )
        with _worded_errors(self.folder):
            self._is_network = is_network_drive(self.folder)
            # One database per host, as locks of network drives cannot be relied upon.
            host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())
            self._stem = f"{FORMAT}-{host}" if self._is_network else FORMAT
            self.path = self._numbered(max(self._numbers(), default=0))

    def _numbers(self) -> list[int]:
        """List the files: the last one is in use, those before it were damaged."""
        pattern = re.compile(re.escape(self._stem) + r"\.([0-9]+)\.sqlite")
        found = map(pattern.fullmatch, os.listdir(self.folder))
        return [int(match[1]) for match in found if match]

    def _numbered(self, number: int) -> str:
        return os.path.join(self.folder, f"{self._stem}.{number}.sqlite")

    def ask(
        self,
        question: Callable[[sqlite3.Connection], Answer],
        otherwise: Answer,
        *,
        needs_write: bool = False,
    ) -> Answer:
        """Ask the database; when it fails, say so once and go on without it.

        Parameters
        ----------
        question : callable
            Called with a connection, again with another one when the file was damaged.

        otherwise : object
            Returned when there is no database to ask.

        needs_write : bool, default=False
            Whether `question` writes.

        Returns
        -------
        answer : object
            What `question` returned.
        """
        while self._can_read and (self.can_write or not needs_write):
            path, can_write = self.path, self.can_write
            try:
                return question(self._connection(path, can_write))
            except sqlite3.ProgrammingError:
                raise  # ours
            except FAILURES as error:
                is_damaged = can_write and _code(error) in DAMAGE
                if not (is_damaged and self._replace(path, error)):
                    self._do_without(error, can_write)
        return otherwise

    def write(self, command: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Run a command in one transaction.

        Parameters
        ----------
        command : callable
            Called with a connection.

        Returns
        -------
        answer : object
            What `command` returned, or None when nothing can be written.
        """

        def question(connection: sqlite3.Connection) -> Answer:
            with _transaction(connection):
                return command(connection)

        return self.ask(question, None, needs_write=True)

    def n_bytes(self) -> int:
        """Return the size on disk."""
        size = 0
        for file in (self.path, f"{self.path}-wal"):
            # Who closes the last connection removes the journal.
            with contextlib.suppress(OSError):
                size += os.path.getsize(file)
        return size

    def give_space_back(self) -> None:
        """Shrink the file to what it holds, and remove those that were damaged."""

        def shrink(connection: sqlite3.Connection) -> None:
            # Fails beside other runs, which will fill the space again.
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self.ask(shrink, None, needs_write=True)
        with contextlib.suppress(OSError):
            for number in sorted(self._numbers())[:-1]:
                for end in ("", "-wal", "-shm", "-journal"):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(self._numbered(number) + end)

    def _connection(self, path: str, can_write: bool) -> sqlite3.Connection:
        """Return this thread's connection; none is ever shared."""
        thread = threading.current_thread()
        opened = self._connections.get(thread)
        if opened is not None and opened.path == path:
            return opened.connection
        if can_write:
            connection = _open(path, "rwc")
            with _closed_on_error(connection):
                _prepare(connection, "DELETE" if self._is_network else "WAL")
        else:
            connection = self._read_only(path)
        with self._lock:
            # Pools come and go during a run.
            ended = [t for t in self._connections if t is thread or not t.is_alive()]
            for other in ended:
                self._connections.pop(other).connection.close()
            self._connections[thread] = _Opened(path, connection)
        return connection

    def _read_only(self, path: str) -> sqlite3.Connection:
        if not self._ignores_log:
            try:
                connection = _open(path, "ro")
                with _closed_on_error(connection):
                    connection.execute("SELECT 1 FROM rows LIMIT 1")
                return connection
            except sqlite3.OperationalError:
                # A log cannot be opened without writing beside it.
                self._ignores_log = True
        # Rows of a run that goes on may be missing; checksums guard the rest.
        return _open(path, "ro&immutable=1")

    def _replace(self, path: str, error: Exception) -> bool:
        """Go on with a new file, and leave the damaged one as it is.

        To rename it would tear it from its journal, which others that still have both
        open find by name.
        """
        with self._lock:
            if path != self.path:
                return True  # another thread did
            try:
                last = max(self._numbers(), default=0)
            except OSError:  # the folder is gone
                return False
            if self._n_set_aside == MAX_SET_ASIDE:
                return False
            self._n_set_aside += 1
            is_first = path == self._numbered(last)
            self.path = self._numbered(last + 1 if is_first else last)
        reason = str(error) if str(error).isprintable() else "a text in it is none"
        self._say(
            f"The embedding cache {path!r} is damaged ({reason}). It is left for you "
            f"to examine or delete, and {os.path.basename(self.path)!r} takes its "
            "place: rows that are not in there are embedded again."
        )
        return True

    def _do_without(self, error: Exception, could_write: bool) -> None:
        with self._lock:
            if could_write:
                is_known, self.can_write = not self.can_write, False
                # For which SQLite has tried ten seconds, as it would again.
                self._ignores_log |= _code(error) == sqlite3.SQLITE_PROTOCOL
            else:
                is_known, self._can_read = not self._can_read, False
        if is_known:
            return  # another thread has met it
        if could_write:
            self._say(
                f"Cannot write to the embedding cache in {self.folder!r} ({error}): "
                "rows that it holds are used, new ones are remembered in this process "
                "alone. Make room there or make it writable, or choose another "
                "cache_dir."
            )
        else:
            self._say(
                f"Cannot read the embedding cache in {self.folder!r} ({error}): going "
                "on without it. Choose another cache_dir."
            )

    def _say(self, message: str) -> None:
        """Warn, or leave it to the caller's thread, whose line is to be named."""
        self._unsaid.append(message)
        if threading.get_ident() == self._thread:
            self._speak()

    def _speak(self) -> None:
        while self._unsaid:
            warn_user(self._unsaid.pop(0))


@contextlib.contextmanager
def _worded_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Got cache_dir={folder!r}, which is no folder that can be used "
            f"({reason}), but expected one on a local disk; choose another."
        ) from error


def _code(error: Exception) -> int:
    # The sqlite3 module itself finds text that is none, and gives no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _open(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        # Closed by whoever ends the run, in another thread than used it.
        check_same_thread=False,
    )


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection, journal: str) -> None:
    """Create what is missing; killed half-way, the next one goes on."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            tables = "SELECT 1 FROM sqlite_master WHERE name = 'claims'"
            if connection.execute(tables).fetchone() is None:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            (now,) = connection.execute("PRAGMA journal_mode").fetchone()
            if now.upper() != journal:
                connection.execute(f"PRAGMA journal_mode = {journal}")
            if journal == "WAL":
                # Power failure may lose the last batches, and never damages.
                connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute(tables).fetchone() is None:
                with _transaction(connection):
                    for table in TABLES:
                        connection.execute(table)
            return
        except sqlite3.OperationalError as error:
            # Who changes the journal does not wait for others by itself.
            is_busy = _code(error) == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
