"""The loop that every Python driver shares: one JSON command a line in, one JSON answer a line out. See README.md for the
commands. Standard library only; never decides what is right, it only tells what the client did.
"""
import base64
import json
import sys
import traceback


class Skip(Exception):
    """This client cannot do that; the message says why."""


class ClientError(Exception):
    """The client reported an error: Kafka's number where the client gives one, else -1."""

    def __init__(self, code, name):
        super().__init__(name)
        self.code, self.name = code, name


def b64(data):
    return None if data is None else base64.b64encode(data).decode()


def unb64(text):
    return None if text is None else base64.b64decode(text)


def record(offset, timestamp, key, value, headers):
    """One consumed record as the runner wants it."""
    return {"o": offset, "ts": timestamp, "k": b64(key), "v": b64(value), "h": [[n, b64(v)] for n, v in headers or []]}


def serve(driver):
    """Answer until standard input ends. `driver` has one method per command, named after it."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": True, **(getattr(driver, command.pop("op"))(**command) or {})}
        except Skip as e:
            answer = {"skip": str(e)}
        except ClientError as e:
            answer = {"ok": False, "code": e.code, "error": e.name}
        except Exception as e:  # the runner shows it as this case's failure
            answer = {"ok": False, "code": getattr(e, "errno", -1) or -1, "error": repr(e), "trace": traceback.format_exc(limit=4)}
        print(json.dumps(answer), flush=True)
