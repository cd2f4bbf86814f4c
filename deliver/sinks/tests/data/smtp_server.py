"""A mail server for the tests: prints its port, then each message as a line of JSON. Ends with its standard input.

Usage: smtp_server.py plain|starttls|tls [CERTIFICATE KEY [USER PASSWORD]]

A recipient whose name begins with `unknown` is refused for good, one with `busy` for now.
"""

import json
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

mode, certificate, key, user, password = (sys.argv[1:] + [None] * 5)[:5]


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("unknown"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("busy"):
            return "451 4.3.0 greylisted, try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "message": envelope.content.decode("ascii"),
        }
        print(json.dumps(message), flush=True)
        return "250 queued as 42"


def authenticate(server, session, envelope, mechanism, given):
    right = isinstance(given, LoginPassword) and given.login == user.encode() and given.password == password.encode()
    return AuthResult(success=right, handled=False)


context = None
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
settings = {"hostname": "127.0.0.1", "port": 0, "server_hostname": "localhost"}
if mode == "starttls":
    settings |= {"tls_context": context, "require_starttls": True}
if mode == "tls":
    settings |= {"ssl_context": context}
if user:
    settings |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": mode == "starttls"}


class AnyPort(Controller):
    """The base class connects to the port that it was given, which is 0."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


controller = AnyPort(Handler(), **settings)
controller.start()
print(controller.port, flush=True)
sys.stdin.read()
controller.stop()
