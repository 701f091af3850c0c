"""Runs in a pod: sends small mails for some time, and writes the outcome of each as a line of JSON.

    send.py HOST:PORT DOMAIN SECONDS SESSIONS

What is written about a mail: `sent` before MAIL, then one of `accepted` (the whole 250 line was
read), `refused` with the code, or `unknown` (the connection died after the final dot). The file
/tmp/stop ends it early; `{"done": true}` is the last line.
"""

import hashlib
import json
import os
import smtplib
import sys
import threading
import time

lock = threading.Lock()
run = os.urandom(4).hex()


def tell(**fields):
    with lock:
        print(json.dumps(fields), flush=True)


def connect(host, port):
    try:
        client = smtplib.SMTP(host, port, timeout=60)
        client.ehlo()
    except (OSError, smtplib.SMTPException):
        time.sleep(0.2)
        return None
    return client


def send(client, name, domain):
    """Send one mail; False if the session is of no more use."""
    body = f"This is {name}.\n" + f"{os.urandom(30).hex()}\n" * 10
    digest = hashlib.sha256(body.encode()).hexdigest()
    head = f"From: cluster-test@{domain}\nSubject: {name}\nX-Ledger-Id: {name}\n\n"
    tell(sent=name, sha256=digest)
    dot_sent = False
    try:
        for code, _ in (client.mail(f"cluster-test@{domain}"), client.rcpt(f"sink@{domain}")):
            if code >= 400:
                tell(refused=name, code=code)
                client.rset()
                return True
        dot_sent = True
        code, _ = client.data((head + body).replace("\n", "\r\n").encode())
        tell(accepted=name) if code == 250 else tell(refused=name, code=code)
    except smtplib.SMTPDataError as error:
        tell(refused=name, code=error.smtp_code)
    except (OSError, smtplib.SMTPException):
        if dot_sent:
            tell(unknown=name)
        client.close()
        return False
    return True


def work(number, host, port, domain, end):
    client = None
    count = 0
    while time.monotonic() < end and not os.path.exists("/tmp/stop"):
        client = client or connect(host, port)
        if client is None:
            continue
        count += 1
        # Fresh sessions now and then, so that every pod behind the Service gets some.
        if not send(client, f"{run}-{number}-{count}", domain) or count % 20 == 0:
            client.close()
            client = None
        time.sleep(0.1)


def main():
    place, domain, seconds, sessions = sys.argv[1:]
    host, _, port = place.rpartition(":")
    end = time.monotonic() + float(seconds)
    threads = [
        threading.Thread(target=work, args=(number, host, int(port), domain, end))
        for number in range(int(sessions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell(done=True)


main()
