"""
The shapes of the answers, as JSON schemas.

Times are in ms since the epoch, durations in ms, sizes in bytes, rates in items per second.
"""

from __future__ import annotations

from typing import Any, Final

from darner.values.vocabulary import STATUSES

Schema = dict[str, Any]

WHOLE: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
STATUS: Final[Schema] = {"type": "string", "enum": list(STATUSES)}


def shape(**members: Schema) -> Schema:
    """@return: an object that has these members, and no others."""
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def some(entry: Schema) -> Schema:
    """@return: an array."""
    return {"type": "array", "items": entry}


def by_name(entry: Schema) -> Schema:
    """@return: an object with any members."""
    return {"type": "object", "additionalProperties": entry}


def maybe(schema: Schema) -> Schema:
    """@return: that, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def about(doc: str, schema: Schema) -> Schema:
    return {**schema, "description": doc}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_PAYLOAD: Final = shape(
    encoding=about("How data spells the bytes: as text if they are UTF-8, else in Base64.", one_of("utf-8", "base64")),
    data=TEXT,
    truncated=about("Whether data is only the beginning.", FLAG),
)

_ROW: Final[dict[str, Schema]] = {
    "name": TEXT,
    "items": about("Items to be had now or after a retry delay: ready and retrying.", WHOLE),
    "bytes": about("Payload bytes of these.", WHOLE),
    "open": about("Items that somebody has open.", WHOLE),
    "delayed": about("Items that are not due yet.", WHOLE),
    "retrying": about("Items that were given back and wait for their next attempt.", WHOLE),
    "dead_letter_queue": about("Where items go that failed too often; null: nowhere.", maybe(TEXT)),
    "dead": about("Items in the dead letter queue now.", WHOLE),
    "waiters": about("Clients that wait for an item.", WHOLE),
    "in_rate": about("Items that came, per second.", NUMBER),
    "out_rate": about("Items that left for whatever reason, per second.", NUMBER),
    "oldest_ms": about("Age of the item at the head; 0 where there is none.", WHOLE),
    "durable": FLAG,
    "max_items": maybe(WHOLE),
    "max_bytes": maybe(WHOLE),
    "used": about("The part of max_items or max_bytes that is used, 0 to 1; null without limit.", maybe(NUMBER)),
}

LIVE: Final = (
    "items", "bytes", "open", "delayed", "retrying", "dead", "waiters", "in_rate", "out_rate", "oldest_ms",
)
"""What is told of a queue each second."""

_SETTING: Final = shape(
    name=TEXT,
    value=about("As in the configuration file; 'none' for no limit.", TEXT),
    source=about(
        "What decided: the built-in default, the table [defaults], the parent of a fan-out child, a pattern of "
        "[queues], or the queue's own table.",
        one_of("built-in", "defaults", "parent", "pattern", "queue"),
    ),
    key=about("The pattern, or the name of the parent or queue; null for the other sources.", maybe(TEXT)),
)

_HEALTH: Final = shape(
    ok=FLAG,
    reasons=some(shape(
        code=one_of("store", "disk", "status", "stopping"), text=TEXT, since=about("null: unknown.", maybe(WHOLE)),
    )),
)  # fmt: skip

_COUNTS: Final[dict[str, Schema]] = {
    "queues": WHOLE, "items": WHOLE, "bytes": WHOLE, "open": WHOLE, "delayed": WHOLE, "retrying": WHOLE,
    "waiters": WHOLE, "in_rate": NUMBER, "out_rate": NUMBER,
}  # fmt: skip

_SERIES: Final = some(maybe(NUMBER))

SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {"type": TEXT, "title": TEXT, "status": WHOLE, "detail": TEXT, "instance": TEXT},
        "required": ["type", "title", "status", "detail"],
        "additionalProperties": False,
    },
    "Session": shape(
        user=about("null: not logged in, or the server has no users.", maybe(TEXT)),
        login_required=about("Whether the server has users.", FLAG),
        authenticated=about("Whether requests are served: logged in, or no log-in is needed.", FLAG),
        rights=maybe(shape(
            read=about("Patterns of queue names.", some(TEXT)), write=some(TEXT), admin=some(TEXT),
            server=about("Whether status, reload, clients may be changed.", FLAG),
        )),
        version=TEXT,
        instance=about("Another one after each start of the server.", TEXT),
    ),
    "Health": _HEALTH,
    "Totals": shape(**_COUNTS),
    "Server": shape(
        version=TEXT, compiled=about("Whether the compiled modules run.", FLAG), python=TEXT, twisted=TEXT, pid=WHOLE,
        instance=TEXT, started=WHOLE, time=WHOLE, uptime_ms=WHOLE, status=STATUS, health=ref("Health"),
        memory_bytes=about("Resident memory.", maybe(WHOLE)),
        disk=about("null: unknown, as for a store in memory.", maybe(shape(free=WHOLE, total=WHOLE))),
        listeners=some(TEXT),
        connections=shape(current=WHOLE, total=WHOLE, rejected=WHOLE, http=about("HTTP connections now.", WHOLE)),
        totals=ref("Totals"),
        counters=about("As in stats of the protocol.", by_name(WHOLE)),
        settings=about("Settings of the server by name, as text; 'none' where there is none.", by_name(TEXT)),
    ),
    "Status": shape(status=STATUS),
    "Reloaded": shape(reloaded=FLAG),
    "QueueRow": {
        **shape(**_ROW),
        "properties": {**_ROW, "sparkline": about("Items every 10 s over the last 10 min, the newest last; "
                                                  "only where asked for.", _SERIES)},
    },
    "Queues": shape(
        time=WHOLE,
        total=about("How many queues the filter selects.", WHOLE),
        offset=WHOLE,
        limit=WHOLE,
        queues=some(ref("QueueRow")),
        totals=about("Of all queues that the user may see, whatever the filter says.", ref("Totals")),
    ),
    "Queue": shape(
        **_ROW,
        created=WHOLE,
        exists=about("False where clients wait for a queue that was not made yet.", FLAG),
        counters=about("As in stats of the protocol.", by_name(WHOLE)),
        settings=some(_SETTING),
        parent=maybe(TEXT),
        children=some(TEXT),
        aliases=about("Aliases that put on this queue.", some(TEXT)),
        time=WHOLE,
    ),
    "History": shape(
        start=about("When the first point was taken.", WHOLE),
        step_ms=WHOLE,
        items=about("One value a point; null: not known.  All arrays have the same length.", _SERIES),
        bytes=_SERIES,
        in_rate=_SERIES,
        out_rate=_SERIES,
        age_p50_ms=about("Half of the items taken had waited at most so long.", _SERIES),
        age_p99_ms=_SERIES,
    ),
    "Done": shape(items=about("How many items.", WHOLE)),
    "Deleted": shape(deleted=about("Whether there was such a queue.", FLAG)),
    "Stored": shape(queue=TEXT, size=WHOLE),
    "Payload": _PAYLOAD,
    "Taken": shape(queue=TEXT, flags=WHOLE, size=WHOLE, payload=ref("Payload")),
    "Opened": shape(
        queue=TEXT, flags=WHOLE, size=WHOLE, payload=ref("Payload"),
        token=about("For close, abort and touch.", TEXT),
        expires=about("When the item goes back unless it is closed.", WHOLE),
    ),
    "Ended": shape(ended=about("Whether it was open until now.", FLAG)),
    "Item": shape(
        id=about("Opaque; valid for this queue and state.", TEXT),
        state=one_of("ready", "open", "delayed", "retrying"),
        flags=WHOLE,
        size=WHOLE,
        time=about("When it was put.", WHOLE),
        age_ms=WHOLE,
        expires=about("null: never.", maybe(WHOLE)),
        attempts=about("How often it was opened, where that is counted.", WHOLE),
        due=about("When it is to be had: of delayed and retrying items; else null.", maybe(WHOLE)),
        opened=about("Of open items; else null.", maybe(shape(
            by=one_of("client", "http", "application"),
            client=about("Its id under /clients; null where it has none.", maybe(TEXT)),
            address=maybe(TEXT), user=maybe(TEXT), since=WHOLE,
        ))),
        preview=ref("Payload"),
    ),
    "Items": shape(
        queue=about("Where the items are: for dead ones the dead letter queue.", TEXT),
        state=one_of("ready", "open", "delayed", "retrying", "dead"),
        total=about("How many items there are in this state, whatever the filter says.", WHOLE),
        items=some(ref("Item")),
        next=about("To be given as 'after' for the next page; null: there are no more.", maybe(TEXT)),
    ),
    "Clients": shape(
        total=WHOLE, offset=WHOLE, limit=WHOLE,
        clients=some(shape(
            id=TEXT, address=TEXT, user=maybe(TEXT), tls=FLAG, listener=about("Where it is connected.", TEXT),
            protocol=one_of("memcache", "text", "http"), since=WHOLE,
            idle_ms=about("Silent for about so long; null: it is not.", maybe(WHOLE)),
            waits_for=about("Queues.", some(TEXT)),
            open=about("How many items it has open, by queue.", by_name(WHOLE)),
            open_reads=WHOLE, bytes_held=WHOLE,
        )),
    ),
    "BackupMade": shape(
        name=about("Of its directory.", TEXT), time=about("The moment that it shows.", WHOLE), files=WHOLE,
        bytes=about("Of all its files.", WHOLE),
        linked=about("How many files are links to those of the store or of the backup before.", WHOLE),
        copied=WHOLE, copied_bytes=WHOLE, removed=about("Older backups that were removed.", some(TEXT)),
    ),
    "Closed": shape(closed=FLAG),
    "Tick": about("Data of the event 'rates'.", shape(
        time=WHOLE, status=STATUS, healthy=FLAG, connections=WHOLE, totals=ref("Totals"), memory_bytes=maybe(WHOLE),
        queues=about("The queues that were asked for, by name; null: there is none.", by_name(maybe(shape(
            **{name: _ROW[name] for name in LIVE}, age_p50_ms=maybe(NUMBER), age_p99_ms=maybe(NUMBER),
        )))),
    )),
}
