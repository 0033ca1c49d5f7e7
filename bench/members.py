#!/usr/bin/env python3
"""How much a thousand members that join, or rejoin, at once disturb a producer on the same shard.

members.py --pelton PROGRAM [--members 1000] [--seconds 4] [--every 0] [--port 21500] [--dir DIR]

They join again and again without pause, or all at once each `--every` seconds.

One shard on core 0; the producer (closed loop, one record of 100 bytes, acks=all) and the members on core 1, the producer with real-time
priority, so that it waits for the broker and not for the members' own work. Needs root for that. Nothing but Python's standard library.
"""
import argparse
import os
import pathlib
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOPIC = "storm"


def text(s):
    return struct.pack(">h", len(s)) + s.encode()


def blob(b):
    return struct.pack(">i", len(b)) + b


def frame(key, version, correlation, body, flexible=False):
    head = struct.pack(">hhi", key, version, correlation) + text("storm") + (b"\0" if flexible else b"")
    return blob(head + body)


def short(s):
    return bytes([len(s) + 1]) + s.encode()


def read(sock):
    got = b""
    while len(got) < 4:
        got += sock.recv(4 - len(got)) or sys.exit("the broker closed a connection")
    size = struct.unpack(">i", got)[0]
    got = b""
    while len(got) < size:
        got += sock.recv(size - len(got)) or sys.exit("the broker closed a connection")
    return got


def call(sock, data):
    sock.sendall(data)
    return read(sock)


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def crc32c(data):
    table = crc32c.table
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table():
    rows = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        rows.append(n)
    return rows


crc32c.table = _table()


def batch(value):
    record = b"\0\0\0\x01" + bytes([0x80 | (len(value) << 1 & 0x7F), len(value) >> 6]) + value + b"\0"
    record = bytes([0x80 | (len(record) << 1 & 0x7F), len(record) >> 6]) + record
    tail = struct.pack(">hiqqqhii", 0, 0, 0, 0, -1, -1, -1, 1) + record
    return struct.pack(">qiibI", 0, 9 + len(tail), 0, 2, crc32c(tail)) + tail


def produce_frame(correlation):
    records = batch(b"x" * 100)
    body = struct.pack(">hhii", -1, -1, 30000, 1) + text(TOPIC) + struct.pack(">ii", 1, 0) + blob(records)
    return frame(0, 3, correlation, body)


def cpu_ns(pid):
    """What all threads of a process have run, nanoseconds."""
    return sum(int(f.read_text().split()[0]) for f in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))


def produce(port, seconds, pid):
    """Closed loop; sorted microseconds, and the broker's share of its core meanwhile."""
    began_ns, ran_ns = time.monotonic_ns(), cpu_ns(pid)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    sock, took, until = connect(port), [], time.monotonic() + seconds
    data = produce_frame(1)
    while time.monotonic() < until:
        began = time.perf_counter_ns()
        answer = call(sock, data)
        took.append((time.perf_counter_ns() - began) / 1000)
        at = 4 + 4 + 2 + len(TOPIC) + 4 + 4
        error = struct.unpack(">h", answer[at:at + 2])[0]
        if error:
            sys.exit(f"produce: error {error}")
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return sorted(took), (cpu_ns(pid) - ran_ns) / (time.monotonic_ns() - began_ns)


class Storm:
    """Members on non-blocking connections; each does what its step says when its answer is there."""

    def __init__(self, port, count, protocol):
        self.protocol, self.count, self.rounds, self.done, self.failed = protocol, count, 0, 0, 0
        self.selector = selectors.DefaultSelector()
        self.members = []
        for index in range(count):
            sock = connect(port)
            member = {"sock": sock, "in": b"", "id": "", "epoch": 0, "index": index, "group": "", "generation": -1}
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, member)
            self.members.append(member)

    def begin(self):
        """All join a group of this round."""
        self.rounds += 1
        self.done = 0
        for member in self.members:
            member.update(group=f"{self.protocol}-{self.rounds}", id="", epoch=0)
            self.join(member)

    def join(self, member):
        group = member["group"]
        if self.protocol == "classic":
            subscription = struct.pack(">hi", 0, 1) + text(TOPIC) + struct.pack(">i", -1)
            body = (text(group) + struct.pack(">ii", 60000, 60000) + text(member["id"]) + text("consumer") + struct.pack(">i", 1)
                    + text("range") + blob(subscription))
            member["waits"] = "join"
            return self.send(member, frame(11, 2, 1, body))
        member["id"] = f"member-{member['index']:05d}-of-round-{self.rounds}"
        body = (short(group) + short(member["id"]) + struct.pack(">i", 0) + b"\0\0" + struct.pack(">i", 60000)
                + bytes([2]) + short(TOPIC) + b"\0" + bytes([1]) + b"\0")
        member["waits"] = "beat"
        return self.send(member, frame(68, 0, 1, body, True))

    def send(self, member, data):
        member["sock"].setblocking(True)
        member["sock"].sendall(data)
        member["sock"].setblocking(False)

    def pump(self, wait):
        for key, _ in self.selector.select(wait):
            member = key.data
            try:
                data = member["sock"].recv(1 << 20)
            except BlockingIOError:
                continue
            if not data:
                sys.exit("the broker closed a member's connection")
            member["in"] += data
            while len(member["in"]) >= 4:
                size = struct.unpack(">i", member["in"][:4])[0]
                if len(member["in"]) < 4 + size:
                    break
                answer, member["in"] = member["in"][4:4 + size], member["in"][4 + size:]
                self.answer(member, answer)

    def answer(self, member, answer):
        if self.protocol != "classic":
            error = struct.unpack(">h", answer[9:11])[0]
            self.failed += error != 0
            self.done += 1
            return
        if member["waits"] == "join":
            error, generation = struct.unpack(">hi", answer[8:14])
            if error:
                self.failed += 1
                self.done += 1
                return
            at = 14
            names = []
            for _ in range(3):
                size = struct.unpack(">h", answer[at:at + 2])[0]
                names.append(answer[at + 2:at + 2 + size].decode())
                at += 2 + size
            member["id"], member["generation"] = names[2], generation
            body = text(member["group"]) + struct.pack(">i", generation) + text(member["id"])
            given = struct.pack(">i", 1) + text(member["id"]) + blob(b"\0") if names[1] == names[2] else struct.pack(">i", 0)
            member["waits"] = "sync"
            return self.send(member, frame(14, 1, 1, body + given))
        error = struct.unpack(">h", answer[8:10])[0]
        if error == 27:
            # The group rebalances again, since not all had come: it joins anew, as clients do.
            return self.join(member)
        self.failed += error not in (0, 22, 25)
        self.done += 1

    def round(self, patience=10):
        began = time.monotonic()
        self.begin()
        while self.done < self.count and time.monotonic() - began < patience:
            self.pump(0.05)
        return time.monotonic() - began


def storm(port, count, protocol, seconds, every, ready):
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(19)
    members = Storm(port, count, protocol)
    members.round()
    ready.touch()
    until, times = time.monotonic() + seconds, []
    first = members.rounds
    while time.monotonic() < until:
        times.append(members.round())
        time.sleep(max(0, every - times[-1]))
    times.sort()
    print(f"{protocol}: {members.rounds - first} rounds of {count} members, median {times[len(times) // 2] * 1000:.0f} ms until all are "
          f"answered, longest {times[-1] * 1000:.0f} ms, {members.failed} refused", flush=True)


def row(name, produced):
    took, share = produced
    at = lambda q: took[min(len(took) - 1, int(len(took) * q))]
    print(f"| {name} | {len(took)} | {at(0.5):.0f} | {at(0.99):.0f} | {at(0.999):.0f} | {took[-1]:.0f} | {share * 100:.0f} |", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--pelton", required=True)
    p.add_argument("--members", type=int, default=1000)
    p.add_argument("--seconds", type=float, default=4)
    p.add_argument("--every", type=float, default=0)
    p.add_argument("--port", type=int, default=21500)
    p.add_argument("--dir")
    args = p.parse_args()
    where = tempfile.mkdtemp(prefix="storm-", dir=args.dir)
    broker = subprocess.Popen(
        ["taskset", "-c", "0", args.pelton, "start", "--data-dir", f"{where}/data", "--kafka", f"127.0.0.1:{args.port}", "--admin", "off",
         "--shards", "1", "-X", "group.initial.rebalance.delay.ms=0", "-X", "num.partitions=100", "-X", "group.consumer.max.size=2000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(0, {1})
        deadline = time.monotonic() + 20
        while True:
            try:
                sock = connect(args.port)
                break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("the broker does not start")
                time.sleep(0.1)
        # Metadata makes the topic, FindCoordinator the offsets topic.
        for _ in range(50):
            call(sock, frame(3, 4, 1, struct.pack(">i", 1) + text(TOPIC) + b"\x01"))
            answer = call(sock, frame(10, 1, 1, text("classic-1") + b"\0"))
            if struct.unpack(">h", answer[8:10])[0] == 0:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        print("| produce while | requests | p50 us | p99 us | p99.9 us | max us | broker CPU % |\n|---|---|---|---|---|---|---|")
        produce(args.port, 1, broker.pid)
        row("nothing else happens", produce(args.port, args.seconds, broker.pid))
        said = []
        for protocol in ("classic", "consumer"):
            ready = pathlib.Path(where) / protocol
            child = os.fork()
            if child == 0:
                sys.stdout = open(f"{where}/{protocol}.txt", "w")
                storm(args.port, args.members, protocol, args.seconds + 1, args.every, ready)
                sys.stdout.flush()
                os._exit(0)
            while not ready.exists():
                if os.waitpid(child, os.WNOHANG)[0]:
                    sys.exit(f"the members of {protocol} have gone")
                time.sleep(0.02)
            how = f"all at once each {args.every:g} s" if args.every else "again and again"
            row(f"{args.members} members join {how}, {protocol}", produce(args.port, args.seconds, broker.pid))
            os.waitpid(child, 0)
            said.append(pathlib.Path(f"{where}/{protocol}.txt").read_text())
        row("nothing else happens, again", produce(args.port, args.seconds, broker.pid))
        print()
        print("".join(said))
    finally:
        broker.send_signal(signal.SIGTERM)
        try:
            broker.wait(30)
        except subprocess.TimeoutExpired:
            broker.kill()
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
