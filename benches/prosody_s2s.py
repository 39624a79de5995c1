"""Two Prosody servers, the users of one subscribed to by users of the other: bytes and time for each change of presence.

scripts/bench-cluster runs it in a network namespace of its own, as root, where 127.0.0.1 is the name server's address. Prints one
JSON object. What crosses is read off the sockets between the two (ss: bytes acknowledged and received, TCP's payload).
"""

import argparse
import json
import os
import pathlib
import re
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HOSTS = {"one.example": "127.0.0.2", "two.example": "127.0.0.3"}
CLIENTS, SERVERS = 5222, 5269
PATIENCE = 120


def answer(query):
    """An address for each host, nothing else for it, and no other name."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    question = query[12 : at + 5]
    address = HOSTS.get(".".join(labels).lower())
    (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
    found = address and kind == 1
    head = query[:2] + struct.pack("!HHHHH", 0x8580 if address else 0x8583, 1, int(bool(found)), 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address) if found else b""
    return head + question + record


def serve_names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        query, peer = server.recvfrom(4096)
        server.sendto(answer(query), peer)


def start(host, directory):
    data = directory / host
    data.mkdir()
    config = directory / f"{host}.lua"
    config.write_text(f"""
pidfile = "{data}/pid"
data_path = "{data}"
run_as_root = true
interfaces = {{ "{HOSTS[host]}" }}
c2s_ports = {{ {CLIENTS} }} s2s_ports = {{ {SERVERS} }} http_ports = {{}} https_ports = {{}}
modules_enabled = {{ "roster"; "saslauth"; "register"; "dialback" }}
allow_registration = true
c2s_require_encryption = false
s2s_require_encryption = false
s2s_secure_auth = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
limits = {{}}
log = {{ warn = "{directory}/{host}.log" }}
VirtualHost "{host}"
""")
    return subprocess.Popen(["prosody", "--config", str(config), "-F"], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


class Client:
    """A user with a connection, spoken to by bytes."""

    def __init__(self, host, number):
        self.jid, self.heard, self.shown = f"u{number}@{host}", b"", 0
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket = socket.create_connection((HOSTS[host], CLIENTS))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.host, name = host, f"u{number}"
        self.open()
        self.ask(
            f"<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{name}</username><password>p</password></query></iq>",
            b"id='r'",
        )
        plain = __import__("base64").b64encode(f"\0{name}\0p".encode()).decode()
        self.ask(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>", b"<success")
        self.open()
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>b</resource></bind>"
        self.ask(f"<iq type='set' id='b'>{bind}</iq>", b"id='b'")
        self.ask("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>", b"id='g'")
        self.say("<presence/>")
        self.socket.setblocking(False)

    def open(self):
        stream = "<stream:stream to='%s' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
        self.ask("<?xml version='1.0'?>" + stream % self.host, b"</stream:features>")

    def say(self, text):
        bytes_ = text.encode()
        while bytes_:
            try:
                bytes_ = bytes_[self.socket.send(bytes_) :]
            except BlockingIOError:
                time.sleep(0.001)

    def ask(self, text, until):
        self.say(text)
        self.heard = b""
        while until not in self.heard and until.replace(b"'", b'"') not in self.heard:
            came = self.socket.recv(65536)
            if not came:
                raise SystemExit(f"{self.jid}: the server closed, after {self.heard[-300:]!r}")
            self.heard += came
        self.heard = b""

    def hear(self):
        """Counts what came: requests to subscribe, and what others show."""
        try:
            self.heard += self.socket.recv(1 << 20)
        except BlockingIOError:
            return []
        end = max(self.heard.rfind(b"</presence>"), self.heard.rfind(b"/>"), self.heard.rfind(b"</iq>"))
        if end < 0:
            return []
        whole, self.heard = self.heard[: end + 1], self.heard[end + 1 :]
        self.shown += whole.count(b"</show>")
        return re.findall(rb"<presence[^>]*type=['\"](subscribe|subscribed)['\"]", whole)


def crossed():
    """Payload bytes of the connections between the servers, each counted where it is sent."""
    told = subprocess.run(["ss", "-tinH", f"( dport = :{SERVERS} )"], capture_output=True, text=True, check=True).stdout
    count = lambda name: sum(int(number) for number in re.findall(rf"\b{name}:(\d+)", told))
    return count("bytes_acked") + count("bytes_received")


def processor_s(processes):
    fields = [pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split() for process in processes]
    return sum(int(words[11]) + int(words[12]) for words in fields) / os.sysconf("SC_CLK_TCK")


def run(users, subscribers, updates):
    with tempfile.TemporaryDirectory() as directory:
        processes = [start(host, pathlib.Path(directory)) for host in HOSTS]
        try:
            return measure(processes, users, subscribers, updates)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def measure(processes, users, subscribers, updates):
    publishers = [Client("one.example", number) for number in range(users)]
    listeners = [Client("two.example", number) for number in range(users)]
    selector = selectors.DefaultSelector()
    for client in publishers + listeners:
        selector.register(client.socket, selectors.EVENT_READ, client)
    done = {"subscribe": 0, "subscribed": 0}

    def listen(until, what):
        heard_at = time.monotonic()
        while not until():
            for key, _ in selector.select(1):
                heard_at = time.monotonic()
                for kind in key.data.hear():
                    done[kind.decode()] += 1
            if time.monotonic() - heard_at > PATIENCE:
                raise SystemExit(f"{what}: nothing comes any more ({done})")

    pairs = [(publisher, listeners[(at + step) % users]) for at, publisher in enumerate(publishers) for step in range(subscribers)]
    for publisher, listener in pairs:
        listener.say(f"<presence to='{publisher.jid}' type='subscribe'/>")
    listen(lambda: done["subscribe"] == len(pairs), "requests")
    for publisher, listener in pairs:
        publisher.say(f"<presence to='{listener.jid}' type='subscribed'/>")
    listen(lambda: done["subscribed"] == len(pairs), "answers")
    time.sleep(1)
    shown = lambda: sum(client.shown for client in listeners)
    before, seen, cpu, began = crossed(), shown(), processor_s(processes), time.monotonic()
    for number in range(updates):
        for publisher in publishers:
            publisher.say(f"<presence><show>{('away', 'chat')[number % 2]}</show></presence>")
        wanted = seen + (number + 1) * len(pairs)
        listen(lambda: shown() >= wanted, "presence")
    seconds, said = time.monotonic() - began, updates * users
    return {
        "server": subprocess.run(["dpkg-query", "-W", "prosody"], capture_output=True, text=True).stdout.strip(),
        "users": users,
        "subscribers": subscribers,
        "updates": said,
        "bytes_per_update_across": round((crossed() - before) / said, 1),
        "deliveries_per_update": round((shown() - seen) / said, 3),
        "server_cpu_us_per_update": round((processor_s(processes) - cpu) / said * 1e6, 1),
        "updates_per_s": round(said / seconds, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--subscribers", type=int, default=20)
    parser.add_argument("--updates", type=int, default=20, help="of each user")
    given = parser.parse_args()
    threading.Thread(target=serve_names, daemon=True).start()
    json.dump(run(given.users, given.subscribers, given.updates), sys.stdout)
    print()
