#!/usr/bin/env python3
"""Turns a canary off when Bellwether's gate says to roll it back (docs/gates.md). It needs only the standard library.

Usage: receiver.py KEY_FILE FLAGS_FILE [PORT]

The flags are a file of flagd, the daemon of OpenFeature, which reads the file again when it changes. In each flag with a variant of
the canary and one of its baseline, the baseline becomes the default and the targeting is removed. For another service, replace
`turn_off`: LaunchDarkly, for example, takes a semantic patch with the instruction `turnFlagOff`.

Only messages that are signed as Standard Webhooks describes, and at most five minutes old, are obeyed. The same message may arrive
twice; the second changes nothing.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

MOST_BYTES = 1 << 20
MOST_SECONDS = 300


def read_key(path):
    with open(path, encoding="utf-8") as file:
        text = file.read().strip()
    return base64.b64decode(text.removeprefix("whsec_")) if text.startswith("whsec_") else text.encode()


def refusal(key, headers, body, now):
    """Returns why a message is not obeyed, or nothing if its signature is right and it is new."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (message_id and timestamp.isascii() and timestamp.isdigit()):
        return "the message is not signed"
    if abs(now - int(timestamp)) > MOST_SECONDS:
        return "the message is too old, or from the future; compare the clocks"
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # While a key is rotated, there is one signature for each key.
    given = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
        return "the signature is wrong"
    return None


def turn_off(path, canary, baseline):
    """Makes the baseline the default of each flag that serves the canary; returns the names of these flags."""
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    changed = []
    for name, flag in document["flags"].items():
        variants = {release: variant for variant, release in flag["variants"].items()}
        if canary in variants and baseline in variants:
            flag["defaultVariant"] = variants[baseline]
            flag["targeting"] = {}
            changed.append(name)
    # flagd never reads half a file.
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    os.replace(temporary, path)
    return changed


class Receiver(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return self.answer(413, "the message is too long")
        body = self.rfile.read(int(length))
        why = refusal(read_key(KEY_FILE), self.headers, body, time.time())
        if why:
            return self.answer(401, why)
        event = json.loads(body)
        if event["type"] != "bellwether.rollback":
            return self.answer(200, f"nothing to do for `{event['type']}`")
        data = event["data"]
        changed = turn_off(FLAGS_FILE, data["canary"], data["baseline"])
        if not changed:
            return self.answer(404, f"no flag serves both `{data['canary']}` and `{data['baseline']}`")
        return self.answer(200, f"turned off in {', '.join(changed)}")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    KEY_FILE, FLAGS_FILE = sys.argv[1:3]
    server = HTTPServer(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) == 4 else 8087), Receiver)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
