"""Record batches (magic 2): build one, look into one. Uncompressed or gzip only, which is all the raw tests need.

Never trusts a broker: `parse` checks the CRC of every batch that came back.
"""
import gzip
import struct
from dataclasses import dataclass, field

from .wire import Reader, varint

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
HEADER_BYTES = 61


def _table():
    out = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1
        out.append(n)
    return out


_TABLE = _table()


def crc32c(data):
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@dataclass
class Record:
    value: bytes | None = None
    key: bytes | None = None
    timestamp: int = 1_700_000_000_000
    headers: list = field(default_factory=list)
    offset: int = -1


@dataclass
class Batch:
    base_offset: int
    size: int
    leader_epoch: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int
    body: bytes

    @property
    def codec(self):
        return CODECS[self.attributes & 7]

    @property
    def last_offset(self):
        return self.base_offset + self.last_offset_delta


def build(records, producer_id=-1, producer_epoch=-1, base_sequence=-1, codec="none", magic=2, base_offset=0, attributes=None,
          count=None, last_offset_delta=None, break_crc=False):
    """One batch of `records`; the last arguments make it wrong on purpose."""
    base_ts = records[0].timestamp if records else 0
    body = bytearray()
    for i, r in enumerate(records):
        one = bytearray(b"\0") + varint(r.timestamp - base_ts) + varint(i)
        for part in (r.key, r.value):
            one += varint(-1) if part is None else varint(len(part)) + part
        one += varint(len(r.headers))
        for name, value in r.headers:
            one += varint(len(name)) + name.encode() + (varint(-1) if value is None else varint(len(value)) + value)
        body += varint(len(one)) + one
    if codec == "gzip":
        body = gzip.compress(bytes(body))
    tail = struct.pack(">hiqqqhii", CODECS.index(codec) if attributes is None else attributes,
                       len(records) - 1 if last_offset_delta is None else last_offset_delta, base_ts,
                       max((r.timestamp for r in records), default=0), producer_id, producer_epoch, base_sequence,
                       len(records) if count is None else count) + bytes(body)
    crc = crc32c(tail) ^ (1 if break_crc else 0)
    return struct.pack(">qiibI", base_offset, len(tail) + 9, -1, magic, crc) + tail


def parse(data):
    """All whole batches in `data`; a cut last one is left out, as clients do. A wrong CRC raises."""
    out, at = [], 0
    while len(data) - at >= HEADER_BYTES:
        base_offset, length, epoch, magic, crc = struct.unpack_from(">qiibI", data, at)
        if magic != 2:
            raise ValueError(f"magic {magic}")
        if at + 12 + length > len(data):
            break
        tail = data[at + 21:at + 12 + length]
        if crc32c(tail) != crc:
            raise ValueError(f"wrong CRC in the batch at {base_offset}")
        out.append(Batch(base_offset, 12 + length, epoch, *struct.unpack_from(">hiqqqhii", tail), tail[40:]))
        at += 12 + length
    return out


def records(batch):
    """The records of an uncompressed or gzip batch."""
    reader = Reader(gzip.decompress(batch.body) if batch.codec == "gzip" else batch.body)
    out = []
    for _ in range(batch.count):
        reader.varint()
        reader.take(1)
        ts, delta = batch.base_timestamp + reader.varint(), reader.varint()
        key, value = _optional(reader), _optional(reader)
        headers = [(_optional(reader).decode(), _optional(reader)) for _ in range(reader.varint())]
        out.append(Record(value, key, ts, headers, batch.base_offset + delta))
    return out


def _optional(reader):
    n = reader.varint()
    return None if n < 0 else reader.take(n)
