"""`google.rpc.Status` with an `ErrorInfo`: how a machine-readable reason travels with an error.

Standard clients look for it in the trailing field `grpc-status-details-bin`, and grpcurl prints it.
The two messages are defined here, since a package for three fields each is not worth having, and
in a pool of their own, so that they do not clash where that package is installed.
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import DESCRIPTOR as ANY_FILE
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError

DETAILS_FIELD = "grpc-status-details-bin"
DOMAIN = "gatepost"

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, dict[str, tuple[int, int, str]]] = {
    "Status": {
        "code": (1, _Field.TYPE_INT32, ""),
        "message": (2, _Field.TYPE_STRING, ""),
        "details": (3, _Field.TYPE_MESSAGE, ".google.protobuf.Any"),
    },
    "ErrorInfo": {
        "reason": (1, _Field.TYPE_STRING, ""),
        "domain": (2, _Field.TYPE_STRING, ""),
    },
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="gatepost/google_rpc_status.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=[ANY_FILE.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, of) in fields.items():
            label = _Field.LABEL_REPEATED if field == "details" else _Field.LABEL_OPTIONAL
            message.field.add(
                name=field, number=number, type=kind, type_name=of or None, label=label
            )
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(ANY_FILE.serialized_pb)
_pool.Add(_file())
# Any: these classes are made at run time, and nothing outside this module sees them.
_Status: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("google.rpc.Status"))
_ErrorInfo: Any = message_factory.GetMessageClass(
    _pool.FindMessageTypeByName("google.rpc.ErrorInfo")
)


def encode(code: grpc.StatusCode, text: str, reason: str) -> bytes:
    """The value of the trailing field."""
    status = _Status(code=code.value[0], message=text)
    status.details.add().Pack(_ErrorInfo(reason=reason, domain=DOMAIN))
    encoded: bytes = status.SerializeToString()
    return encoded


def decode_reason(encoded: bytes) -> str:
    """The reason in the value of the trailing field; empty if there is none of ours."""
    try:
        for detail in _Status.FromString(encoded).details:
            info = _ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return str(info.reason)
    except DecodeError:
        pass  # whoever answered was no server of ours
    return ""


class ReflectionPool:
    """The default pool and, behind it, the messages above, which grpcurl cannot show otherwise.

    As much of a pool as the reflection service uses; its look-ups raise `KeyError`.
    """

    def __init__(self) -> None:
        self._default = descriptor_pool.Default()
        self.FindExtensionByNumber = self._default.FindExtensionByNumber

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802
        try:
            return self._default.FindFileByName(name)
        except KeyError:
            return _pool.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        try:
            return self._default.FindFileContainingSymbol(symbol)
        except KeyError:
            return _pool.FindFileContainingSymbol(symbol)

    def FindMessageTypeByName(self, name: str) -> Descriptor:  # noqa: N802
        try:
            return self._default.FindMessageTypeByName(name)
        except KeyError:
            return _pool.FindMessageTypeByName(name)

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:  # noqa: N802
        pool = _pool if message.file.pool is _pool else self._default
        return pool.FindAllExtensions(message)
