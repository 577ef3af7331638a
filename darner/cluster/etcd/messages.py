"""
The messages of etcd's API that the log uses, as the library C{protobuf} makes them of this description.

Names and numbers are those of the API version 3 of etcd; what the log does not use is left out, and skipped where etcd
sends it.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SCHEMA = """
KeyValue            1 key bytes, 2 create_revision int64, 3 mod_revision int64, 5 value bytes
ResponseHeader      2 member_id uint64, 3 revision int64
RangeRequest        1 key bytes, 2 range_end bytes, 3 limit int64, 8 keys_only bool
RangeResponse       1 header ResponseHeader, 2 kvs KeyValue*, 3 more bool
PutRequest          1 key bytes, 2 value bytes
PutResponse         1 header ResponseHeader
DeleteRangeRequest  1 key bytes, 2 range_end bytes
DeleteRangeResponse 1 header ResponseHeader, 2 deleted int64
Compare             1 result int32, 2 target int32, 3 key bytes, 5 create_revision int64, 7 value bytes
RequestOp           1 request_range RangeRequest, 2 request_put PutRequest, 3 request_delete_range DeleteRangeRequest
ResponseOp          1 response_range RangeResponse, 2 response_put PutResponse
TxnRequest          1 compare Compare*, 2 success RequestOp*, 3 failure RequestOp*
TxnResponse         1 header ResponseHeader, 2 succeeded bool, 3 responses ResponseOp*
CompactionRequest   1 revision int64
CompactionResponse  1 header ResponseHeader
StatusRequest
StatusResponse      1 header ResponseHeader, 4 leader uint64
AuthenticateRequest 1 name string, 2 password string
AuthenticateResponse 2 token string
WatchCreateRequest  1 key bytes, 2 range_end bytes, 3 start_revision int64, 5 filters int32*, 8 fragment bool
WatchProgressRequest
WatchRequest        1 create_request WatchCreateRequest, 3 progress_request WatchProgressRequest
Event               1 type int32, 2 kv KeyValue
WatchResponse       3 created bool, 4 canceled bool, 5 compact_revision int64, 6 cancel_reason string, 11 events Event*
"""
"""Messages by name: their fields with number, name and type, and C{*} for repeated ones.  Enumerations are int32."""

_PACKAGE = "darner.cluster.etcd"
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bytes": _FIELD.TYPE_BYTES, "string": _FIELD.TYPE_STRING, "bool": _FIELD.TYPE_BOOL, "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64, "uint64": _FIELD.TYPE_UINT64,
}  # fmt: skip


def _make() -> dict[str, Any]:
    """@return: the classes of the messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="darner/cluster/etcd", package=_PACKAGE, syntax="proto3")
    for line in _SCHEMA.strip().splitlines():
        name, _, fields = line.partition(" ")
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(",")):
            number, field_name, kind = field.split()
            repeated = kind.endswith("*")
            kind = kind.rstrip("*")
            added = message.field.add(
                name=field_name, number=int(number),
                label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
                type=_SCALARS.get(kind, _FIELD.TYPE_MESSAGE),
            )  # fmt: skip
            if kind not in _SCALARS:
                added.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}"))
        for message in file.message_type
    }


_CLASSES = _make()

RangeRequest = _CLASSES["RangeRequest"]
RangeResponse = _CLASSES["RangeResponse"]
PutRequest = _CLASSES["PutRequest"]
PutResponse = _CLASSES["PutResponse"]
DeleteRangeRequest = _CLASSES["DeleteRangeRequest"]
DeleteRangeResponse = _CLASSES["DeleteRangeResponse"]
Compare = _CLASSES["Compare"]
RequestOp = _CLASSES["RequestOp"]
TxnRequest = _CLASSES["TxnRequest"]
TxnResponse = _CLASSES["TxnResponse"]
CompactionRequest = _CLASSES["CompactionRequest"]
CompactionResponse = _CLASSES["CompactionResponse"]
StatusRequest = _CLASSES["StatusRequest"]
StatusResponse = _CLASSES["StatusResponse"]
AuthenticateRequest = _CLASSES["AuthenticateRequest"]
AuthenticateResponse = _CLASSES["AuthenticateResponse"]
WatchCreateRequest = _CLASSES["WatchCreateRequest"]
WatchProgressRequest = _CLASSES["WatchProgressRequest"]
WatchRequest = _CLASSES["WatchRequest"]
WatchResponse = _CLASSES["WatchResponse"]

EQUAL = 0
"""The C{result} of a L{Compare}."""

CREATE, VALUE = 1, 3
"""What a L{Compare} is about: the revision at which a key was made, or its value."""

NO_DELETE = 1
"""A filter of a L{WatchCreateRequest}."""


def is_absent(key: bytes) -> Any:
    """@return: the L{Compare} that holds where there is no such key."""
    return Compare(result=EQUAL, target=CREATE, key=key, create_revision=0)


def has_value(key: bytes, value: bytes) -> Any:
    """@return: the L{Compare} that holds where a key has that value."""
    return Compare(result=EQUAL, target=VALUE, key=key, value=value)


def put(key: bytes, value: bytes) -> Any:
    """@return: a put, as a part of a transaction."""
    return RequestOp(request_put=PutRequest(key=key, value=value))


def get(key: bytes, end: bytes = b"", limit: int = 0, keys_only: bool = False) -> Any:
    """@return: a read of a key, or of those up to C{end}, as a part of a transaction."""
    return RequestOp(request_range=RangeRequest(key=key, range_end=end, limit=limit, keys_only=keys_only))


def delete(key: bytes, end: bytes) -> Any:
    """@return: the deletion of the keys up to C{end}, as a part of a transaction."""
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))
