"""An SMTP server that takes mail by STARTTLS and AUTH only, and writes each message into a folder.

usage: smtp_server.py PORT CERTIFICATE KEY USER PASSWORD FOLDER
"""

import itertools
import pathlib
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

port, certificate, key, user, password, folder = sys.argv[1:]
numbers = itertools.count()


class Keep:
    async def handle_DATA(self, server, session, envelope):
        whole = pathlib.Path(folder) / f"{next(numbers)}.part"
        whole.write_bytes(envelope.original_content)
        whole.rename(whole.with_suffix(".eml"))
        return "250 kept"


def authenticate(server, session, envelope, mechanism, data):
    right = (data.login.decode(), data.password.decode()) == (user, password)
    return AuthResult(success=right, handled=False)


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
controller = Controller(
    Keep(), hostname="127.0.0.1", port=int(port), tls_context=context, require_starttls=True,
    auth_required=True, auth_require_tls=True, authenticator=authenticate,
    # Its LOGIN asks in other words than Alertmanager's client expects.
    auth_exclude_mechanism=["LOGIN"],
)
controller.start()
print("ready", flush=True)
threading.Event().wait()
