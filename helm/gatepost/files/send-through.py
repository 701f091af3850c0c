"""`helm test`: send a mail to the ingress and wait until delivery brings it back to this pod.

    send-through.py INGRESS:PORT SINK-NAME:PORT DOMAIN SECONDS

The sink here is the next hop of DOMAIN, so the mail goes the way of all mail: SMTP, a verdict, the
queue in NATS, delivery, LMTP. Exit code 0 when it has come, with its content as it was sent.
"""

import secrets
import smtplib
import socket
import socketserver
import sys
import threading
import time

came = threading.Event()
mark = secrets.token_hex(16)


class Sink(socketserver.StreamRequestHandler):
    """As much of an LMTP server as one mail to one recipient needs.

    LMTP, because delivery may be told to demand TLS of SMTP servers, and this one has no
    certificate.
    """

    timeout = 30

    def handle(self):
        self.reply("220 sink")
        while line := self.rfile.readline(2048):
            word = line.split(None, 1)[0].upper() if line.strip() else b""
            if word == b"DATA":
                self.reply("354 go on")
                self.read_content()
                self.reply("250 2.0.0 Ok")
            elif word == b"QUIT":
                self.reply("221 2.0.0 Bye")
                return
            elif word in (b"LHLO", b"EHLO", b"HELO"):
                self.reply("250 sink")
            else:
                self.reply("250 2.0.0 Ok")

    def read_content(self):
        while (line := self.rfile.readline(65536)) not in (b".\r\n", b""):
            if line.strip() == mark.encode():
                came.set()

    def reply(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


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


def main():
    ingress, sink, domain, seconds = sys.argv[1:]
    until = time.monotonic() + float(seconds)
    # Bound to all addresses: the name of the sink is this pod's own address.
    server = Server(("", place(sink)[1]), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # A first attempt that fails would be repeated in an hour, so the way back is tried first.
    wait_for(
        f"the sink is not reached at {sink}",
        lambda: socket.create_connection(place(sink), timeout=5).close(),
        until,
    )
    session = wait_for(
        f"the ingress is not reached at {ingress}",
        lambda: smtplib.SMTP(*place(ingress), timeout=60),
        until,
    )
    sender = recipient = f"helm-test@{domain}"
    text = f"From: {sender}\r\nTo: {recipient}\r\nSubject: helm test\r\n\r\n{mark}\r\n"
    began = time.monotonic()
    with session:
        session.ehlo()
        if session.has_extn("starttls"):
            session.starttls()
            session.ehlo()
        session.mail(sender)
        answers = [session.rcpt(recipient), session.data(text)]
    print("\n".join(f"ingress: {code} {reply.decode()}" for code, reply in answers))
    if answers[-1][0] != 250:
        sys.exit("the mail was not accepted")
    if not came.wait(max(1.0, until - time.monotonic())):
        sys.exit(
            f"accepted, but it has not come back within {seconds} s: see `gatepost queue list`"
        )
    print(f"the mail came back after {time.monotonic() - began:.1f} s")


main()
