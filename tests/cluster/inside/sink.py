"""Runs in a pod: takes mail by LMTP and writes a line of JSON about each, before it answers 250.

    sink.py PORT

It stands for the mail store behind a relay domain. A line has the mail's id, its recipient and the
hash of its body as it was sent, with LF for line ends.
"""

import hashlib
import json
import socketserver
import sys
import threading

lock = threading.Lock()


class Session(socketserver.StreamRequestHandler):
    timeout = 300

    def handle(self):
        self.reply("220 sink")
        recipients = []
        while line := self.rfile.readline(4096):
            command = line.strip().upper()
            if command.startswith(b"RCPT TO:"):
                recipients.append(line[8:].strip().decode("utf-8", "replace"))
                self.reply("250 2.1.5 Ok")
            elif command == b"DATA":
                self.reply("354 go on")
                content = self.read_content()
                for recipient in recipients:
                    self.note(content, recipient)
                    self.reply("250 2.0.0 Ok")
                recipients = []
            elif command == b"QUIT":
                self.reply("221 2.0.0 Bye")
                return
            else:
                if command.startswith((b"MAIL", b"RSET", b"LHLO")):
                    recipients = []
                self.reply("250 2.0.0 Ok")

    def read_content(self):
        lines = []
        while (line := self.rfile.readline(65536)) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b"..") else line)
        return b"".join(lines).replace(b"\r\n", b"\n")

    def note(self, content, recipient):
        head, _, body = content.partition(b"\n\n")
        ids = [
            line[13:].decode() for line in head.split(b"\n") if line.startswith(b"X-Ledger-Id: ")
        ]
        digest = hashlib.sha256(body).hexdigest()
        fields = {"id": ids[0] if ids else "", "recipient": recipient, "sha256": digest}
        subjects = [line for line in head.split(b"\n") if line.startswith(b"Subject: ")]
        fields["subject"] = subjects[0][9:].decode("utf-8", "replace") if subjects else ""
        with lock:
            print(json.dumps(fields), flush=True)

    def reply(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("", int(sys.argv[1])), Session).serve_forever()
