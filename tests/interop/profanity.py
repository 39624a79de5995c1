"""The dialogue by profanity, two of them in a terminal each: TLS (disable, trust, legacy) ADDRESS ALICE BOB."""
import os
import re
import signal
import sys
import tempfile

from terminal import Terminal

TLS, ADDRESS, ALICE, BOB = sys.argv[1:]
HOST, PORT = ADDRESS.rsplit(":", 1)


class Profanity(Terminal):
    def __init__(self, jid, directory):
        home = os.path.join(directory, jid)
        super().__init__(jid.split("@")[0], directory, f"XDG_CONFIG_HOME={home}/config XDG_DATA_HOME={home}/data profanity")
        self.jid = jid

    def log_in(self):
        self.reads("the start", "Type '/help'")
        self.types(f"/connect {self.jid} server {HOST} port {PORT} tls {TLS}")
        self.reads("the question", "[Pp]assword")
        self.types(os.environ["INTEROP_PASSWORD"])
        if TLS == "legacy":
            self.reads("what is wrong with the certificate", "TLS certificate verification failed: self-signed certificate")
            self.types("/tls allow")
        self.reads("its session", re.escape(self.jid) + "/.* logged in successfully")
        if TLS != "disable":
            self.reads("that it is private", r"\[TLS\]")

    def follows(self, other):
        self.types(f"/sub request {other.jid}")
        other.reads("a request", f"Received authorization request from {self.jid}")
        other.types(f"/sub allow {self.jid}")
        self.reads("the permission", f"Subscription received from {other.jid}")
        self.reads("presence", rf"\+\+ {other.jid} \(.*\) is online")


def dialogue(alice, bob):
    alice.log_in()
    bob.log_in()
    alice.follows(bob)
    bob.follows(alice)
    bob.types('/status set away "gone fishing"')
    alice.reads("that bob is away", rf'\+\+ {BOB} \(.*\) is away, "gone fishing"')
    alice.types(f"/msg {BOB} hi bob")
    bob.reads("that a message came", f"<< chat message: {ALICE}/.* \\(win 2\\)")
    bob.types("/win 2")
    bob.reads("the message", f"{ALICE}/.*: hi bob")
    bob.types("hi alice")
    alice.reads("the message", f"{BOB}/.*: hi alice")
    alice.types("/win 1")
    bob.types("/disconnect")
    bob.reads("the end", "logged out successfully")
    alice.reads("that bob is gone", rf"-- {BOB} .*is offline")
    alice.types("/quit")


# Whoever ends this program ends its terminals.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with tempfile.TemporaryDirectory() as directory:
    people = []
    try:
        people = [Profanity(jid, directory) for jid in (ALICE, BOB)]
        dialogue(*people)
    finally:
        for person in people:
            person.end()
