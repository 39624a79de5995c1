"""Two clusters of two nodes, narrated: scripts/cluster-demo builds fanal and runs this."""

import argparse
import base64
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

FANAL = "target/release/fanal"
DATA = pathlib.Path("target/cluster-demo")
BRIDGE, NET = "fanal-demo", "10.77.40"
NODES = [(cluster, node) for cluster in (1, 2) for node in (1, 2)]
LINK, NATIVE, ADMIN, XMPP = 7402, 7400, 7401, 5222
TRAFFIC = 20  # users of each cluster, who subscribe to all of the other's
PATIENCE = 30
LOCKED = 64 << 20  # bytes that all nodes lock together, at most
WHILE = 2  # seconds that traffic is left to itself
PURPOSE_AT = 16 + 4 + 2  # of a link's hello: head, magic, version

began = time.monotonic()


def tell(text):
    print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


class Spaces:
    """A network namespace for each node, on one bridge."""

    def __init__(self):
        self.remove()
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{NET}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for place in NODES:
            name, host = self.name(place), self.host(place)
            run("ip", "netns", "add", name)
            run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", name, "master", BRIDGE, "up")
            run("ip", "-n", name, "address", "add", f"{host}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")

    @staticmethod
    def name(place):
        return "fanal-demo-%d%d" % place

    @staticmethod
    def host(place):
        return f"{NET}.{place[0]}{place[1]}"

    def address(self, place, port):
        return f"{self.host(place)}:{port}"

    def shown(self, place):
        return self.address(place, LINK)

    def command(self, place):
        return ["ip", "netns", "exec", self.name(place)]

    def cut(self):
        far = ", ".join(self.host(place) for place in NODES if place[0] == 2)
        rules = f"""table inet cut {{
            chain out {{ type filter hook output priority 0; ip daddr {{ {far} }} drop; }}
            chain in {{ type filter hook input priority 0; ip saddr {{ {far} }} drop; }}
        }}"""
        for place in NODES[:2]:
            run("ip", "netns", "exec", self.name(place), "nft", "-f", "-", input=rules)

    def heal(self):
        for place in NODES[:2]:
            run("ip", "netns", "exec", self.name(place), "nft", "delete", "table", "inet", "cut")

    def remove(self):
        for place in NODES:
            subprocess.run(["ip", "netns", "delete", self.name(place)], capture_output=True)
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)


class Leads:
    """Everything on loopback: links between clusters are led through sockets here, which a cut closes."""

    def __init__(self):
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(len(NODES) * 4)]
        ports = [one.getsockname()[1] for one in held]
        for one in held:
            one.close()
        kinds = (LINK, NATIVE, ADMIN, XMPP)
        self.ports = {(place, kind): ports[at * 4 + k] for at, place in enumerate(NODES) for k, kind in enumerate(kinds)}
        self.is_cut, self.open, self.doors = False, [], {}
        for place in NODES:
            door = socket.create_server(("127.0.0.1", 0))
            self.doors[place] = door.getsockname()[1]
            threading.Thread(target=self.lead, args=(door, self.ports[place, LINK]), daemon=True).start()

    def lead(self, door, port):
        while True:
            near, _ = door.accept()
            try:
                # Only links between clusters are cut: a hello says behind its head, magic and version what it is for.
                hello = near.recv(PURPOSE_AT + 1, socket.MSG_PEEK | socket.MSG_WAITALL)
                between = hello[PURPOSE_AT:] == b"\x02"
                if self.is_cut and between:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                near.close()
                continue
            if between:
                self.open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pass_on, args=(a, b), daemon=True).start()

    @staticmethod
    def pass_on(a, b):
        try:
            while came := a.recv(1 << 16):
                b.sendall(came)
        except OSError:
            pass
        for end in (a, b):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def address(self, place, port):
        return f"127.0.0.1:{self.ports[place, port]}"

    def shown(self, place):
        return f"127.0.0.1:{self.doors[place]}"

    def command(self, place):
        return []

    def cut(self):
        self.is_cut, gone, self.open = True, self.open, []
        for end in gone:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def heal(self):
        self.is_cut = False

    def remove(self):
        self.cut()


class Node:
    def __init__(self, net, place, secure):
        self.net, self.place, self.name = net, place, "node %d of cluster %d" % place[::-1]
        cluster, node = place
        directory = DATA / f"{cluster}-{node}"
        directory.mkdir(parents=True)
        peers = lambda number: ", ".join(f'"{at[1]}={net.shown(at)}"' for at in NODES if at[0] == number)
        lines = [
            f'[node]\ndata = "{directory}/data"',
            f"[cluster]\nnumber = {cluster}\nnode = {node}\nnodes = [{peers(cluster)}]",
            "[directory]\ncluster = 1" + (f"\nat = [{peers(1)}]" if cluster == 2 else ""),
            f'[link]\nlisten = "{net.address(place, LINK)}"',
        ]
        if secure:
            run(FANAL, "link", "certificate", "--ca", str(DATA / f"ca-{cluster}"), "--cluster", str(cluster), "--node", str(node),
                "--out", str(directory))
            lines[-1] += f'\nca = "{DATA}/ca.pem"\ncertificate = "{directory}/node.pem"\nkey = "{directory}/node.key"'
        native, xmpp = net.address(place, NATIVE), net.address(place, XMPP)
        lines.append(f'[listen]\nnative = "{native}"\nadmin = "{self.admin()}"\nxmpp = "{xmpp}"')
        lines.append("[login]\nplain = true\nopen_registration = true\n\n[limits]\nregistrations_per_minute = 1000")
        config = directory / "fanal.toml"
        config.write_text("\n\n".join(lines) + "\n")
        self.log = open(directory / "log", "w+")
        self.process = subprocess.Popen([*net.command(place), FANAL, "serve", "--config", str(config)], stdout=self.log, stderr=self.log)

    def await_serving(self):
        end = time.monotonic() + PATIENCE
        while "serving" not in pathlib.Path(self.log.name).read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{self.name} did not start: {pathlib.Path(self.log.name).read_text()}")
            time.sleep(0.05)

    def admin(self):
        """Within a namespace of its own a node is managed over its loopback."""
        return f"127.0.0.1:{ADMIN}" if self.net.command(self.place) else self.net.address(self.place, ADMIN)

    def status(self, *options):
        return run(*self.net.command(self.place), FANAL, "cluster", "status", "--admin", self.admin(), *options)

    def await_others(self):
        end = time.monotonic() + PATIENCE
        while [node["found"] for node in json.loads(self.status("--json"))["nodes"]] != [True] * (len(NODES) - 1):
            if time.monotonic() > end:
                sys.exit(f"{self.name} has not found all others: {self.status()}")
            time.sleep(0.05)


class User:
    """An XMPP client, as plain as can be."""

    def __init__(self, net, place, name):
        self.name, self.jid, self.seen, self.rest = name, f"{name}@localhost", {}, ""
        self.heard, self.listener, self.where = threading.Condition(), None, "node %d of cluster %d" % place[::-1]
        host, port = net.address(place, XMPP).split(":")
        self.socket = socket.create_connection((host, int(port)))
        threading.Thread(target=self.listen, daemon=True).start()
        self.open()
        self.ask(f"<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{name}</username><password>demo</password></query></iq>",
                 "<iq[^>]*id='r'")
        plain = base64.b64encode(f"\0{name}\0demo".encode()).decode()
        self.ask(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>", "<success")
        self.open()
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>demo</resource></bind>"
        self.ask(f"<iq type='set' id='b'>{bind}</iq>", "<iq[^>]*id='b'")
        self.ask("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>", "<iq[^>]*id='g'")
        self.say("<presence/>")

    def say(self, text):
        self.socket.sendall(text.encode())

    def open(self):
        self.ask("<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' "
                 "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>", "</stream:features>")

    def ask(self, text, until):
        with self.heard:
            self.rest = ""
        self.say(text)
        self.wait(lambda: re.search(until, self.rest), f"{self.jid} had no answer to {text[:60]}")

    def wait(self, until, complaint):
        with self.heard:
            if not self.heard.wait_for(until, PATIENCE):
                sys.exit(f"{complaint}: {self.rest[-300:]}")

    def listen(self):
        while came := self.socket.recv(1 << 16):
            with self.heard:
                self.rest += came.decode()
                end = 0
                for stanza in re.finditer(r"<presence([^>]*?)(?:/>|>(.*?)</presence>)", self.rest):
                    self.hear(stanza[1], stanza[2] or "")
                    end = stanza.end()
                self.rest = self.rest[end:]
                self.heard.notify_all()

    def hear(self, head, body):
        sender = re.search(r"from='([^'/]*)", head)
        kind = re.search(r"type='([^']*)'", head)
        if not sender or sender[1] == self.jid:
            return
        if kind and kind[1] == "subscribe":
            self.say(f"<presence to='{sender[1]}' type='subscribed'/>")
        elif not kind or kind[1] == "unavailable":
            show, status = re.search(r"<show>(.*?)<", body), re.search(r"<status>(.*?)<", body)
            words = "gone" if kind else (show[1] if show else "there") + (f' ("{status[1]}")' if status else "")
            self.seen[sender[1]] = words
            if self.listener:
                self.listener()

    def shows(self, show, status=""):
        self.say(f"<presence><show>{show}</show><status>{status}</status></presence>")


def until_sees(user, whom, words, since):
    user.wait(lambda: user.seen.get(whom.jid) == words, f"{user.name} never saw {whom.name}: {words}")
    tell(f"  {user.name}, {user.where}, sees {whom.name}: {words}   ({(time.monotonic() - since) * 1000:.0f} ms)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cut", type=float, default=8, metavar="SECONDS", help="how long the link is cut (8)")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    secure = os.geteuid() == 0
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if not secure and limit != resource.RLIM_INFINITY and limit < LOCKED:
        sys.exit(f"error: four nodes lock up to {LOCKED} bytes of memory, and your processes may lock {limit}: "
                 "run this as root, or raise the limit (ulimit -l; memlock in /etc/security/limits.conf)")
    net, nodes = Spaces() if secure else Leads(), []
    try:
        play(net, nodes, secure, given)
    finally:
        for node in nodes:
            node.process.terminate()
        for node in nodes:
            node.process.wait()
        net.remove()
    tell(f"all of it has ended; configurations, data and logs are in {DATA}")


def play(net, nodes, secure, given):
    if secure:
        tell(f"every node has a network namespace and an address of its own ({', '.join(map(net.host, NODES))})")
        for cluster in (1, 2):
            run(FANAL, "link", "ca", "--out", str(DATA / f"ca-{cluster}"))
        (DATA / "ca.pem").write_text("".join((DATA / f"ca-{cluster}" / "ca.pem").read_text() for cluster in (1, 2)))
        tell("each cluster has an authority of its own, each node a certificate: links go inside TLS")
    else:
        tell("all is on loopback; as root every node has a network namespace of its own, and links go inside TLS")
    for place in NODES:
        nodes.append(Node(net, place, secure))
    for node in nodes:
        node.await_serving()
    for node in nodes:
        node.await_others()
    tell("two clusters of two nodes serve; cluster 1 keeps the directory, and cluster 2 has logged in there")
    ann, bob = User(net, (1, 1), "ann"), User(net, (2, 2), "bob")
    tell(f"ann is at {ann.where}, bob at {bob.where}; bob asks to see ann, and ann lets him, and the other way round")
    since = time.monotonic()
    for one, other in ((bob, ann), (ann, bob)):
        one.say(f"<presence to='{other.jid}' type='subscribe'/>")
    until_sees(bob, ann, "there", since)
    until_sees(ann, bob, "there", since)
    stop = traffic(net)
    time.sleep(WHILE)
    print(nodes[0].status())
    change(ann, bob, "away", "back soon")
    tell(f"the link between the clusters is cut for {given.cut:.0f} s" + (", all packets are dropped" if secure else ""))
    since = time.monotonic()
    net.cut()
    until_sees(bob, ann, "gone", since)
    until_sees(ann, bob, "gone", since)
    tell("  neither cluster keeps what it can't know. Ann changes meanwhile: dnd")
    ann.shows("dnd", "in a meeting")
    time.sleep(max(0, given.cut - (time.monotonic() - since)))
    print(nodes[0].status())
    tell("the link is healed")
    since = time.monotonic()
    net.heal()
    until_sees(bob, ann, 'dnd ("in a meeting")', since)
    until_sees(ann, bob, "there", since)
    change(ann, bob, "chat", "free again")
    time.sleep(WHILE)
    stop()
    print(nodes[0].status())
    if given.keep:
        tell(f"all of it stays: configurations, data and logs are in {DATA}; Ctrl-C ends it")
        signal.pause()


def change(ann, bob, show, status):
    since = time.monotonic()
    ann.shows(show, status)
    until_sees(bob, ann, f'{show} ("{status}")', since)


def traffic(net):
    """Users of both clusters who see each other and keep changing, until what it gives is called."""
    users = [[User(net, (cluster, 1 + n % 2), f"user{cluster}-{n}") for n in range(TRAFFIC)] for cluster in (1, 2)]
    for one in users[0]:
        for other in users[1]:
            other.say(f"<presence to='{one.jid}' type='subscribe'/>")
    end, seen, running = time.monotonic() + PATIENCE, [0], [True]
    while any(len(other.seen) < TRAFFIC for other in users[1]):
        if time.monotonic() > end:
            sys.exit("the users of cluster 2 never saw all of cluster 1")
        time.sleep(0.05)

    def count():
        seen[0] += 1

    for other in users[1]:
        other.listener = count

    def change_all():
        number = 0
        while running[0]:
            users[0][number % TRAFFIC].shows(("away", "chat")[number // TRAFFIC % 2])
            number += 1
            time.sleep(0.01)

    threading.Thread(target=change_all, daemon=True).start()
    tell(f"{TRAFFIC} users of each cluster: {TRAFFIC} of cluster 1 change 100 times a second in all, {TRAFFIC} of cluster 2 see each of them")

    def stop():
        running[0] = False
        tell(f"the {TRAFFIC} users of cluster 2 have seen {seen[0]:,} changes")

    return stop


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
