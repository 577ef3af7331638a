"""
The endpoints of the API, declared once: what they take, answer and need.

What does it is registered by L{handles}; the OpenAPI document is made of this table (`darner.web.openapi`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen

from darner.store.backup.making import MOST_KNOWN
from darner.web.fields import QUEUE_NAME, STATUS, Field, choice, flag, queue_name, text, whole

STATES: Final = ("ready", "open", "delayed", "retrying", "dead")
SORTS: Final = (
    "name", "items", "bytes", "in_rate", "out_rate", "oldest_ms", "waiters", "open", "delayed", "retrying", "dead",
    "used",
)  # fmt: skip
MOST_ROWS: Final = 1000
"""Of one page of queues or clients."""
MOST_ITEMS: Final = 200
"""Of one page of items."""
MOST_IDS: Final = 1000
"""That one request names."""
MOST_PREVIEW: Final = 4096
MOST_WAIT: Final = 60_000
"""For which a request waits for an item, in ms."""
MOST_OPEN: Final = 24 * 3600 * 1000
"""For which an item may be open, in ms."""


class Right:
    """What the user of a request needs, of the queue in its path where it has one."""

    ANYONE = "anyone"
    """Also who is not logged in."""
    USER = "user"
    """Any user."""
    SEE = "see"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    SERVER = "server"
    """To administrate all queues, and so the server."""


@frozen
class Endpoint:
    """
    One method of one path.

    @ivar path: below ``/api/v1``, with the names of path parameters in braces.
    @ivar answer: the name of the answer's schema; a media type for what is not JSON; empty for none.
    @ivar raw: whether the body may also be the payload itself, with its other fields in the query.
    @ivar may_be_empty: whether it may also answer 204, with nothing.
    """

    name: str
    method: str
    path: str
    summary: str
    answer: str
    right: str
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] = ()
    status: int = 200
    raw: bool = False
    may_be_empty: bool = False
    doc: str = ""
    parameters: tuple[Field, ...] = field(init=False)

    @parameters.default
    def _path_parameters(self) -> tuple[Field, ...]:
        return tuple(PATH[part[1:-1]] for part in self.path.split("/") if part.startswith("{"))

    @property
    def changes(self) -> bool:
        """Whether it needs the header of changes, and is logged."""
        return self.method != "GET"


ID: Final = "^[0-9]{1,18}(-[0-9]{1,18})?$"
"""An item's id: a number, or of a delayed item when it is due and a number."""

PATH: Final = {
    "name": queue_name("name", "The queue, percent-encoded."),
    "id": text("id", "The item's id, as its page has it.", required=True, max_length=80, pattern=ID),
    "token": text("token", "What opened the item answered.", required=True, max_length=64, pattern="^[\\w-]{1,64}$"),
    "client": text("client", "The client's id.", required=True, max_length=20, pattern="^[0-9]{1,18}$"),
}  # fmt: skip

_PAGE: Final = (
    whole("offset", "How many to leave out.", maximum=2**31, default=0),
    whole("limit", "How many at most.", 1, MOST_ROWS, default=100),
)
_FILTER: Final = (
    text("contains", "Only items whose payload contains this text (of large items, their first 64 KiB)."),
    whole("min_age_ms", "Only items that were put at least so long ago."),
    whole("max_age_ms", "Only items that were put at most so long ago."),
    whole("min_size", "Only items of at least so many bytes."),
    whole("max_size", "Only items of at most so many bytes."),
    whole("flags", "Only items with these flags.", maximum=2**32 - 1),
)
_STATE: Final = choice("state", "Which items.", STATES, "ready")
_PREVIEW: Final = whole("preview", "How many bytes of each payload to show.", maximum=MOST_PREVIEW, default=256)
_SELECTION: Final = (
    _STATE,
    Field(
        "ids", {"type": "array", "items": PATH["id"].schema, "minItems": 1, "maxItems": MOST_IDS},
        "Only these; those that are gone by now are left out.",
    ),
    Field(
        "filter",
        {
            "type": "object",
            "properties": {given.name: given.schema for given in _FILTER},
            "additionalProperties": False,
        },
        "Only what it selects, as the parameters of the same names do.  Without ids and filter: all of the state.",
    ),
)  # fmt: skip
_TARGET: Final = queue_name("target", "The queue to whose end they go.")
_FLAGS: Final = whole("flags", "Kept with the item.", maximum=2**32 - 1, default=0)
_TIMEOUT: Final = whole("timeout_ms", "How long to wait for an item.", maximum=MOST_WAIT, default=0)
_PUT: Final = (
    _FLAGS,
    whole("expiry", "0: never; up to 2,592,000: seconds from now; else Unix time in seconds.", maximum=2**31 - 1,
          default=0),
    whole("delay_ms", "After which time it is to be had; by default as the queue's settings say.",
          maximum=100 * 365 * 24 * 3600 * 1000),
    text("id", "Where the queue has a dedupe_window: within it, no other item with this id is put.",
         pattern=QUEUE_NAME["pattern"]),
    flag("sync", "Answer only when the item is on stable storage."),
)  # fmt: skip

ENDPOINTS: Final = (
    Endpoint("openapi", "GET", "/openapi.json", "This document.", "application/json", Right.ANYONE),
    # Sessions
    Endpoint("session", "GET", "/session", "Who is asking, and what they may do.", "Session", Right.ANYONE),
    Endpoint("log_in", "POST", "/session", "Log in: sets the cookie darner_session.", "Session", Right.ANYONE, body=(
        text("user", "", required=True, minLength=1), text("password", "", required=True, max_length=1000),
    )),
    Endpoint("log_out", "DELETE", "/session", "Forget the session, and clear the cookie.", "", Right.ANYONE,
             status=204),
    # The server
    Endpoint("server", "GET", "/server", "The server.", "Server", Right.USER),
    Endpoint("status", "GET", "/status", "What the server refuses.", "Status", Right.USER),
    Endpoint("set_status", "PUT", "/status", "Change that.", "Status", Right.SERVER, body=(STATUS,)),
    Endpoint("reload", "POST", "/reload", "Read the settings of queues again.", "Reloaded", Right.SERVER),
    Endpoint("backup", "POST", "/backup", "Back up to a directory on the server's machine, below backup_dir.",
             "BackupMade", Right.SERVER, status=201, body=(
        text("directory", "The directory of backups: an absolute path, the same for the one who asks.", required=True,
             max_length=4096),
        text("proof", "The asker has made the file .proof- and this there: so it is the same directory.",
             required=True, max_length=32, pattern="^[0-9a-f]{32}$"),
        whole("keep", "How many backups stay there; by default all.", 1, 1_000_000),
    ), doc="409 where the server cannot write there: then take the stream."),
    Endpoint("backup_stream", "POST", "/backup/stream", "Back up to a stream.", "application/x-tar", Right.SERVER,
             body=(
        Field(
            "known", {"type": "array", "maxItems": MOST_KNOWN,
                      "items": {"type": "string", "maxLength": 16, "pattern": "^[0-9a-f]{16}$"}},
            "The identities of files that the receiver has, from the manifest of an earlier backup: they are left out.",
        ),
    ), doc="A tar archive of regular files.  Its last member is manifest.json, with the checksums of all files."),
    Endpoint("history", "GET", "/history", "The last hour of all queues together.", "History", Right.USER),
    Endpoint("events", "GET", "/events", "Server-sent events.", "text/event-stream", Right.USER, query=(
        text("queues", "Names of up to 20 queues whose figures are wanted, separated by blanks.", max_length=5100),
    ), doc=(
        "Events: 'hello' at the beginning, with the fields of Session; 'rates' each second, a Tick; 'status', a "
        "Status, and 'health', a Health, when they change and after 'hello'.  To one who reads slowly, some are not "
        "sent.  With 'retry: 2000'."
    )),
    # Queues
    Endpoint("list_queues", "GET", "/queues", "Queues, filtered, sorted, by pages.", "Queues", Right.USER, query=(
        text("filter", "Only names that contain this text or, with * or ?, that match this pattern."),
        choice("sort", "By what.", SORTS, "name"),
        choice("order", "Up or down.", ("asc", "desc"), "asc"),
        *_PAGE,
        flag("sparkline", "Whether to add the sparklines."),
    )),
    Endpoint("queue", "GET", "/queues/{name}", "One queue.", "Queue", Right.SEE),
    Endpoint("queue_history", "GET", "/queues/{name}/history", "Its last hour.", "History", Right.SEE),
    Endpoint("delete_queue", "DELETE", "/queues/{name}", "Delete it, with its open items.", "Deleted", Right.ADMIN),
    Endpoint("flush", "POST", "/queues/{name}/flush", "Drop all items but the open ones.", "Done", Right.ADMIN),
    Endpoint("requeue", "POST", "/queues/{name}/requeue", "Move its ready items to the end of another queue.", "Done",
             Right.READ, body=(_TARGET, whole("count", "How many at most; by default all.", 1))),
    # Items
    Endpoint("put", "POST", "/queues/{name}/items", "Put an item.", "Stored", Right.WRITE, status=201, raw=True, body=(
        Field("payload", {"type": "string"}, "The payload.", required=True),
        choice("encoding", "How payload spells it.", ("utf-8", "base64"), "utf-8"),
        *_PUT,
    ), query=_PUT),
    Endpoint("items", "GET", "/queues/{name}/items", "Items of one state, by pages; nothing is consumed.", "Items",
             Right.READ, query=(
        _STATE,
        text("after", "Where the page begins: 'next' of the one before, or the id of any item.", pattern=ID),
        whole("limit", "How many at most.", 1, MOST_ITEMS, default=50),
        _PREVIEW,
        *_FILTER,
    )),
    Endpoint("item", "GET", "/queues/{name}/items/{id}", "One item.", "Item", Right.READ, query=(_STATE, _PREVIEW)),
    Endpoint("payload", "GET", "/queues/{name}/items/{id}/payload", "Its whole payload, as a download.",
             "application/octet-stream", Right.READ, query=(_STATE,)),
    Endpoint("delete_items", "POST", "/queues/{name}/items/delete", "Delete items.", "Done", Right.ADMIN,
             body=_SELECTION),
    Endpoint("move_items", "POST", "/queues/{name}/items/move", "Move items to another queue.", "Done", Right.ADMIN,
             body=(*_SELECTION, _TARGET)),
    Endpoint("return_items", "POST", "/queues/{name}/items/return",
             "Make items that are open, delayed or retrying ready now.", "Done", Right.ADMIN, body=_SELECTION),
    Endpoint("take", "POST", "/queues/{name}/take", "Take the item at the head.", "Taken", Right.READ,
             body=(_TIMEOUT,), may_be_empty=True),
    Endpoint("open", "POST", "/queues/{name}/open", "Open it: it goes back unless it is closed in time.", "Opened",
             Right.READ, body=(
        _TIMEOUT, whole("open_ms", "After which time it goes back.", 1, MOST_OPEN, default=60_000),
    ), may_be_empty=True),
    Endpoint("close_read", "POST", "/reads/{token}/close", "Consume an item that was opened.", "Ended", Right.USER),
    Endpoint("abort_read", "POST", "/reads/{token}/abort", "Give it back.", "Ended", Right.USER),
    # Clients
    Endpoint("clients", "GET", "/clients", "Who is connected.", "Clients", Right.SERVER, query=(
        text("filter", "Only those whose address or user contains this text."), *_PAGE,
    )),
    Endpoint("cut_off", "DELETE", "/clients/{client}", "End a client's connection; its open items go back.", "Closed",
             Right.SERVER),
)  # fmt: skip
"""Every endpoint below ``/api/v1``."""

Handler = Callable[[Any], Any]
HANDLERS: Final[dict[str, Handler]] = {}
"""What does what an endpoint is for, by its name: it is called with a L{darner.web.calls.Call}."""


def handles(name: str) -> Callable[[Handler], Handler]:
    """What is decorated answers the endpoint of this name: with what becomes JSON, or a Deferred of it."""

    def register(handler: Handler) -> Handler:
        HANDLERS[name] = handler
        return handler

    return register
