"""Log-ins that are bound to the server's certificate (tls-server-end-point), by the SCRAM library scramp, which does all of it by
itself: VERSION (1.2, 1.3) ADDRESS ALICE BOB."""
import base64
import socket
import ssl
import sys

import scramp

from patience import PATIENCE, step
from person import CERTIFICATE, PASSWORD

VERSION, ADDRESS, ALICE, BOB = sys.argv[1:]
OPENING = ("<stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
           "xmlns:stream='http://etherx.jabber.org/streams'>")
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
KIND = "tls-server-end-point"


class Connection:
    def __init__(self):
        context = ssl.create_default_context(cafile=CERTIFICATE)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{VERSION.replace('.', '_')}"]
        host, port = ADDRESS.rsplit(":", 1)
        self.stream = context.wrap_socket(socket.create_connection((host, port), PATIENCE), server_hostname="localhost")
        self.features = self.asks(OPENING, "</stream:features>")

    def asks(self, text, *ends):
        """What comes up to and with one of these."""
        self.stream.sendall(text.encode())
        heard = ""
        while not heard.endswith(ends):
            letter = self.stream.recv(1).decode()
            if not letter:
                raise SystemExit(f"FAILED: closed after {heard}")
            heard += letter
        return heard

    def log_in(self, mechanism, jid, binding):
        """Whether both have proved who they are."""
        client = scramp.ScramClient([mechanism], jid.split("@")[0], PASSWORD, channel_binding=(KIND, binding))
        first = base64.b64encode(client.get_client_first().encode()).decode()
        answer = self.asks(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>", "</challenge>", "</failure>")
        client.set_server_first(said(answer))
        last = base64.b64encode(client.get_client_final().encode()).decode()
        answer = self.asks(f"<response xmlns='{SASL}'>{last}</response>", "</success>", "</failure>")
        if answer.startswith("<failure"):
            if "<not-authorized" not in answer:
                raise SystemExit(f"FAILED: {answer}")
            return False
        client.set_server_final(said(answer))
        return True


def said(element):
    return base64.b64decode(element.split(">", 1)[1].split("<", 1)[0]).decode()


def main():
    features = Connection().features
    if KIND not in features:
        step(f"NOT OFFERED: {KIND}")
        return
    for jid, mechanism in [(ALICE, "SCRAM-SHA-1-PLUS"), (BOB, "SCRAM-SHA-256-PLUS")]:
        if f"<mechanism>{mechanism}<" not in features:
            step(f"NOT OFFERED: {mechanism}")
            continue
        connection = Connection()
        if not connection.log_in(mechanism, jid, connection.stream):
            raise SystemExit(f"FAILED: {mechanism} was refused to {jid}")
        step(f"{jid} is in by {mechanism}")
        if Connection().log_in(mechanism, jid, b"of somebody in between"):
            raise SystemExit(f"FAILED: {mechanism} took another certificate's hash")
        step("another certificate's hash is refused")


main()
