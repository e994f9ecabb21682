"""The words and versions of the protocol, from the generated contract: they are written nowhere else."""

from typing import Any

from .gen import policy_pb2 as pb

_versions = [version for version in pb.ProtocolVersion.values() if version > 0]
#: The versions that this release speaks, the lowest and the highest.
PROTOCOL_MIN, PROTOCOL_MAX = min(_versions), max(_versions)


def _words(enum: Any) -> dict[Any, str]:
    """The word of each value but the unspecified one: its name without the enum's prefix, in lower case."""
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return {value: name.removeprefix(prefix).lower() for name, value in enum.items() if value != 0}


#: Why a plan, or a block of one, was refused.
REJECTS: dict["pb.Reject.ValueType", str] = _words(pb.Reject)
#: What a request may have done with its cache.
MODES: dict["pb.Mode.ValueType", str] = _words(pb.Mode)
