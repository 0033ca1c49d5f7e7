"""Kafka's wire format in plain Python: primitives, a tiny schema walker, a raw connection.

For tests only, stdlib only, written from Kafka's message schemas and on purpose independent of Pelton's code and of every
client library. It never retries, never hides an error and never knows more than the bytes that came.
"""
import socket
import struct
import time

FIXED = {"i8": ">b", "i16": ">h", "i32": ">i", "i64": ">q", "u16": ">H", "u32": ">I", "bool": ">?"}


class Closed(Exception):
    """The broker closed the connection."""


class Timeout(Exception):
    """The broker sent nothing in time."""


def uvarint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def varint(n):
    return uvarint((n << 1) ^ (n >> 63) if n >= 0 else ((-n) << 1) - 1)


class Reader:
    """A cursor over bytes; running past the end raises, so a short answer is seen."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise ValueError(f"answer too short: wants {n} bytes at {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n:self.at]

    def fixed(self, kind):
        fmt = FIXED[kind]
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def varint(self):
        n = self.uvarint()
        return (n >> 1) ^ -(n & 1)

    def tags(self):
        return {self.uvarint(): self.take(self.uvarint()) for _ in range(self.uvarint())}


# A schema is a list of fields (name, kind, first version, last version). Kinds: FIXED's names, "uuid", "str", "bytes", a list
# (= array of structs), ("arr", kind), ("one", fields) or ("opt", fields), a struct that may be null (answers only). Null is accepted everywhere on the way in and written where the value is None.
def _live(field, version):
    low = field[2] if len(field) > 2 else 0
    high = field[3] if len(field) > 3 else 99
    return low <= version <= high


def _encode_length(n, flexible, kind):
    if flexible:
        return uvarint(n + 1)
    return struct.pack(">h" if kind == "str" else ">i", n)


def encode_value(kind, value, version, flexible):
    if isinstance(kind, list) or isinstance(kind, tuple) and kind[0] == "arr":
        if value is None:
            return _encode_length(-1, flexible, "arr")
        out = [_encode_length(len(value), flexible, "arr")]
        for item in value:
            out.append(encode(kind, item, version, flexible) if isinstance(kind, list) else encode_value(kind[1], item, version, flexible))
        return b"".join(out)
    if kind in FIXED:
        return struct.pack(FIXED[kind], value)
    if kind == "uuid":
        return value
    raw = value.encode() if isinstance(value, str) else value
    return _encode_length(-1, flexible, kind) if raw is None else _encode_length(len(raw), flexible, kind) + raw


def encode(schema, values, version, flexible):
    """One struct; a field missing in `values` is an error, an unknown one too."""
    names = {f[0] for f in schema}
    if set(values) - names:
        raise KeyError(f"not in the schema: {set(values) - names}")
    out = [encode_value(f[1], values[f[0]], version, flexible) for f in schema if _live(f, version)]
    return b"".join(out) + (b"\0" if flexible else b"")


def decode_value(reader, kind, version, flexible):
    if isinstance(kind, list) or isinstance(kind, tuple) and kind[0] == "arr":
        n = reader.uvarint() - 1 if flexible else reader.fixed("i32")
        if n < 0:
            return None
        if isinstance(kind, list):
            return [decode(reader, kind, version, flexible) for _ in range(n)]
        return [decode_value(reader, kind[1], version, flexible) for _ in range(n)]
    if isinstance(kind, tuple):
        if kind[0] == "opt" and reader.fixed("i8") < 0:
            return None
        return decode(reader, kind[1], version, flexible)
    if kind in FIXED:
        return reader.fixed(kind)
    if kind == "uuid":
        return reader.take(16)
    n = reader.uvarint() - 1 if flexible else reader.fixed("i16" if kind == "str" else "i32")
    if n < 0:
        return None
    raw = reader.take(n)
    return raw.decode() if kind == "str" else raw


def decode(reader, schema, version, flexible):
    out = {f[0]: decode_value(reader, f[1], version, flexible) for f in schema if _live(f, version)}
    if flexible:
        tags = reader.tags()
        if tags:
            out["_tags"] = tags
    return out


class Connection:
    """One TCP connection; `send` and `receive` are apart so that tests can pipeline, stall or send rubbish."""

    def __init__(self, host, port, timeout_s=10.0):
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout_s, self.correlation = timeout_s, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Closed(str(e)) from None

    def frame(self, body):
        self.raw(struct.pack(">i", len(body)) + body)

    def read_exact(self, n, timeout_s=None):
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        out = bytearray()
        while len(out) < n:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout(f"{len(out)} of {n} bytes")
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(n - len(out))
            except socket.timeout:
                raise Timeout(f"{len(out)} of {n} bytes") from None
            except ConnectionError as e:
                raise Closed(str(e)) from None
            if not part:
                raise Closed("end of stream")
            out += part
        return bytes(out)

    def read_frame(self, timeout_s=None):
        return self.read_exact(struct.unpack(">i", self.read_exact(4, timeout_s))[0], timeout_s)

    def header(self, key, version, flexible, client_id="raw"):
        """A request header: v2 for flexible requests, else v1. Returns (bytes, correlation id)."""
        self.correlation += 1
        name = struct.pack(">h", -1) if client_id is None else struct.pack(">h", len(client_id)) + client_id.encode()
        return struct.pack(">hhi", key, version, self.correlation) + name + (b"\0" if flexible else b""), self.correlation

    def send(self, api, version, values, client_id="raw"):
        flexible = version >= api.flexible
        head, correlation = self.header(api.key, version, flexible, client_id)
        self.frame(head + encode(api.request, values, version, flexible))
        return correlation

    def receive(self, api, version, correlation, timeout_s=None):
        flexible = version >= api.flexible
        reader = Reader(self.read_frame(timeout_s))
        got = reader.fixed("i32")
        if got != correlation:
            raise ValueError(f"answer {got} instead of {correlation}: out of order")
        if flexible and api.key != 18:  # ApiVersions answers with header v0 at every version
            reader.tags()
        out = decode(reader, api.response, version, flexible)
        if reader.at != len(reader.data):
            raise ValueError(f"{len(reader.data) - reader.at} bytes too many in the answer of {api.name} v{version}")
        return out

    def call(self, api, version, values, timeout_s=None, client_id="raw"):
        return self.receive(api, version, self.send(api, version, values, client_id), timeout_s)

    def closes(self, timeout_s=5.0):
        """Whether the broker closes this connection in time, without a byte."""
        try:
            self.read_exact(1, timeout_s)
        except Closed:
            return True
        except Timeout:
            return False
        return False

    def silent(self, seconds):
        """Whether nothing comes for so long and the connection stays open."""
        try:
            self.read_exact(1, seconds)
        except Timeout:
            return True
        except Closed:
            return False
        return False
