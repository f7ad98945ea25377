"""Frames between the grader and a sandboxed child: a JSON header and raw bytes, sizes checked first.

A frame is two lengths, a header (JSON, UTF-8) and a payload (the numbers of the header's tensors, one after
the other). The reader is strict, because the other side may send anything.
"""

import json
import math
import struct
import time
from socket import socket
from typing import Any

import torch
from torch import Tensor

LENGTHS = struct.Struct("!IQ")
HEADER_BYTES = 4 << 20
PAYLOAD_BYTES = 64 << 20
MOST_AXES = 16
DEEPEST = 8
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class BrokenFrame(ValueError):
    """What arrived is not a frame, or is larger than a frame may be."""


def send(to: socket, header: dict, payload: bytes = b"") -> None:
    """Send one frame. Raises OSError if the other side is gone, TimeoutError if it does not read."""
    text = json.dumps(header).encode()
    to.sendall(LENGTHS.pack(len(text), len(payload)) + text + payload)


def receive(source: socket, deadline: float = math.inf) -> tuple[dict, bytes]:
    """Return the header and the payload of the next frame.

    Raises TimeoutError when ``time.monotonic()`` passes ``deadline``, EOFError when the other side is gone,
    and BrokenFrame for a frame that is too large or is not JSON. Nothing is allocated for one that is too
    large.
    """
    header_size, payload_size = LENGTHS.unpack(_exactly(source, LENGTHS.size, deadline))
    if header_size > HEADER_BYTES or payload_size > PAYLOAD_BYTES:
        raise BrokenFrame(f"a frame of {header_size} + {payload_size} bytes")
    text = _exactly(source, header_size, deadline)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenFrame("a header that is not JSON") from error
    if not isinstance(header, dict):
        raise BrokenFrame("a header that is not an object")
    return header, _exactly(source, payload_size, deadline)


def _exactly(source: socket, size: int, deadline: float) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        source.settimeout(None if remaining == math.inf else remaining)
        count = source.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return bytes(data)


def pack(value: Any) -> tuple[Any, bytes]:
    """Return ``value`` as JSON and the bytes of its tensors.

    Tensors, booleans, numbers, strings, None, and tuples and lists of these; anything else is a TypeError.

    >>> pack((1, torch.zeros(2, dtype=torch.bool)))
    ({'tuple': [1, {'tensor': ['bool', [2]]}]}, b'\\x00\\x00')
    """
    chunks: list[bytes] = []
    return _pack(value, chunks), b"".join(chunks)


def _pack(value: Any, chunks: list[bytes]) -> Any:
    if isinstance(value, Tensor) and value.dtype in DTYPES.values():
        chunks.append(value.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape)]}
    if isinstance(value, (tuple, list)):
        return {type(value).__name__: [_pack(item, chunks) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"expected tensors, numbers, strings, None or tuples of these, got {type(value).__name__}"
    )


def unpack(packed: Any, payload: bytes) -> Any:
    """Return the value that ``pack`` made ``packed`` and ``payload`` of; anything else is a BrokenFrame.

    >>> unpack(*pack((1, torch.zeros(2, dtype=torch.bool))))
    (1, tensor([False, False]))
    """
    reader = _Reader(payload)
    value = reader.read(packed, DEEPEST)
    if reader.position != len(payload):
        raise BrokenFrame(f"{len(payload) - reader.position} bytes that belong to no tensor")
    return value


class _Reader:
    def __init__(self, payload: bytes):
        self.payload = payload
        self.position = 0

    def read(self, packed: Any, depth: int) -> Any:
        if packed is None or type(packed) in (bool, int, float, str):
            return packed
        if type(packed) is not dict or len(packed) != 1 or not depth:
            raise BrokenFrame("a value of an unknown kind")
        (kind, content), *_ = packed.items()
        if type(content) is list and kind in ("tuple", "list"):
            items = [self.read(item, depth - 1) for item in content]
            return tuple(items) if kind == "tuple" else items
        if type(content) is list and kind == "tensor" and len(content) == 2:
            return self._tensor(*content)
        raise BrokenFrame("a value of an unknown kind")

    def _tensor(self, name: Any, shape: Any) -> Tensor:
        dtype = DTYPES.get(name) if type(name) is str else None
        if dtype is None or type(shape) is not list or len(shape) > MOST_AXES:
            raise BrokenFrame("a tensor of unknown dtype or shape")
        if not all(type(size) is int and 0 <= size <= PAYLOAD_BYTES for size in shape):
            raise BrokenFrame("a tensor of impossible shape")
        size = math.prod(shape) * dtype.itemsize
        if size > len(self.payload) - self.position:
            raise BrokenFrame("a tensor larger than its bytes")
        raw = bytearray(self.payload[self.position : self.position + size])
        self.position += size
        if not raw:
            return torch.empty(shape, dtype=dtype)
        if dtype is torch.bool:  # a byte that is neither 0 nor 1 would make a boolean that equals nothing
            return torch.frombuffer(raw, dtype=torch.uint8).ne(0).reshape(shape)
        return torch.frombuffer(raw, dtype=dtype).reshape(shape)
