"""`helm test`: submit a mail to the ingress and wait until delivery brings it back to this pod.

    send-through.py POLICY:PORT INGRESS:PORT starttls|implicit SINK-NAME:PORT DOMAIN FOLDER SECONDS

The mail goes the way of all mail: SMTP, a verdict, the queue in NATS, delivery, SMTP. It is
submitted by an account of DOMAIN, which is made here with a password that nobody else knows, and
removed in the end. The sink is the smarthost of what is submitted from DOMAIN; nobody else's mail
is led there. Exit code 0 when it has come, with its content as it was sent. FOLDER is for files of
this run.
"""

import secrets
import smtplib
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from services.common.tls import ensure_self_signed

came = threading.Event()
mark = secrets.token_hex(16)


class Sink(socketserver.StreamRequestHandler):
    """As much of an SMTP server as one mail to one recipient needs.

    With TLS, which delivery may be told to demand of every server.
    """

    timeout = 30

    def handle(self):
        self.reply("220 sink")
        while line := self.rfile.readline(2048):
            word = line.split(None, 1)[0].upper() if line.strip() else b""
            if word == b"EHLO":
                self.reply("250-sink", "250 STARTTLS")
            elif word == b"STARTTLS":
                self.reply("220 2.0.0 go on")
                self.request = self.server.tls.wrap_socket(self.request, server_side=True)
                self.setup()
            elif word == b"DATA":
                self.reply("354 go on")
                self.read_content()
                self.reply("250 2.0.0 Ok")
            elif word == b"QUIT":
                self.reply("221 2.0.0 Bye")
                return
            else:
                self.reply("250 2.0.0 Ok")

    def read_content(self):
        while (line := self.rfile.readline(65536)) not in (b".\r\n", b""):
            if line.strip() == mark.encode():
                came.set()

    def reply(self, *lines):
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address, folder):
        super().__init__(address, Sink)
        files = ensure_self_signed(Path(folder), "sink")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(files.certificate, files.key)


def place(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def wait_for(what, attempt, until):
    while True:
        try:
            return attempt()
        except OSError as error:
            if time.monotonic() > until:
                sys.exit(f"{what}: {error}")
            time.sleep(1)


class Account:
    """A login for as long as the `with` statement lasts."""

    def __init__(self, policy, address):
        self.policy = policy
        self.address = address
        self.password = secrets.token_urlsafe(24)

    def make(self):
        for verb in ("add", "passwd"):  # a run that was cut off has left the account
            done = self.run(verb, "--password-file", "-")
            if done.returncode == 0:
                return
        raise OSError(done.stderr.strip())

    def remove(self):
        self.run("delete", "--yes")

    def run(self, verb, *options):
        command = [sys.executable, "-m", "services.cli.main", "accounts", verb, self.address]
        return subprocess.run(
            [*command, *options, "--server", self.policy],
            check=False,
            input=self.password,
            capture_output=True,
            text=True,
            timeout=60,
        )


def open_session(ingress, tls):
    """Nobody is asked for a certificate that fits: the ingress may have made its own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls == "implicit":
        return smtplib.SMTP_SSL(*place(ingress), timeout=60, context=context)
    session = smtplib.SMTP(*place(ingress), timeout=60)
    session.starttls(context=context)
    return session


def send(session, account):
    address = account.address
    text = f"From: {address}\r\nTo: {address}\r\nSubject: helm test\r\n\r\n{mark}\r\n"
    with session:
        session.login(address, account.password)
        session.mail(address)
        answers = [session.rcpt(address), session.data(text)]
    print("\n".join(f"ingress: {code} {reply.decode()}" for code, reply in answers))
    if answers[-1][0] != 250:
        sys.exit("the mail was not accepted")


def main():
    policy, ingress, tls, sink, domain, folder, seconds = sys.argv[1:]
    until = time.monotonic() + float(seconds)
    # Bound to all addresses: the name of the sink is this pod's own address.
    server = Server(("", place(sink)[1]), folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # A first attempt that fails would be repeated in an hour, so the way back is tried first.
    wait_for(
        f"the sink is not reached at {sink}",
        lambda: socket.create_connection(place(sink), timeout=5).close(),
        until,
    )
    session = wait_for(
        f"the ingress is not reached at {ingress}", lambda: open_session(ingress, tls), until
    )
    account = Account(policy, f"helm-test@{domain}")
    wait_for(f"{account.address} is not made at {policy}", account.make, until)
    try:
        began = time.monotonic()
        send(session, account)
        if not came.wait(max(1.0, until - time.monotonic())):
            sys.exit(
                f"accepted, but it has not come back within {seconds} s: see `gatepost queue list`"
            )
    finally:
        account.remove()
    print(f"the mail came back after {time.monotonic() - began:.1f} s")


main()
