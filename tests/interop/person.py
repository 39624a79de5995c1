"""A user of slixmpp for the dialogues: logs in, and waits for what it is to see.

Every `sees` looks for the first thing that came and was not looked at yet; it prints one line, or fails after PATIENCE seconds.
"""
import asyncio
import os
import pathlib

import slixmpp

from patience import PATIENCE, step

PASSWORD = os.environ["INTEROP_PASSWORD"]
CERTIFICATE = os.environ["INTEROP_CERTIFICATE"]

# What clients ask for at log-in; sessions with these are the usual ones.
PLUGINS = ["xep_0012", "xep_0030", "xep_0092", "xep_0107", "xep_0115", "xep_0163", "xep_0191", "xep_0198", "xep_0199", "xep_0202",
           "xep_0203", "xep_0280", "xep_0352"]


class Person(slixmpp.ClientXMPP):
    def __init__(self, jid, mode, address, password=PASSWORD):
        super().__init__(jid, password)
        self.name = self.boundjid.user.rstrip("0123456789")
        self.address = address.rsplit(":", 1)
        self.enable_plaintext = mode == "plain"
        self.enable_starttls = mode == "starttls"
        self.enable_direct_tls = mode == "tls"
        if mode == "plain":
            self.plugin["feature_mechanisms"].unencrypted_scram = True
        else:
            self.ca_certs = pathlib.Path(CERTIFICATE)
        for plugin in PLUGINS:
            self.register_plugin(plugin)
        self.auto_authorize = None
        self.auto_subscribe = False
        self.came = []
        self.more = asyncio.Event()
        for event in ["session_start", "session_resumed", "stream_negotiated", "tls_success", "failed_auth", "disconnected",
                      "presence", "message", "roster_update", "carbon_sent", "carbon_received", "blocked", "user_mood_publish"]:
            self.add_event_handler(event, lambda data, event=event: self.note(event, data))

    def note(self, event, data):
        self.came.append((event, data))
        self.more.set()

    async def sees(self, what, test):
        """Waits for an (event, data) that passes the test, and takes it away."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    for index, (event, data) in enumerate(self.came):
                        if test(event, data):
                            del self.came[index]
                            step(f"{self.name} sees {what}")
                            return data
                    self.more.clear()
                    await self.more.wait()
        except TimeoutError:
            left = "\n".join(f"    {event}: {data}" for event, data in self.came)
            raise SystemExit(f"FAILED: {self.name} never saw {what}; what came:\n{left}") from None

    async def log_in(self):
        self.connect(self.address[0], int(self.address[1]))
        if self.enable_starttls or self.enable_direct_tls:
            await self.sees("a private connection", lambda event, _: event == "tls_success")
        await self.sees("its session", lambda event, _: event == "session_start")
        await self.sees("all features negotiated", lambda event, _: event == "stream_negotiated")
        self.offered = (await self.plugin["xep_0030"].get_info("localhost"))["disco_info"]["features"]
        await self.get_roster()
        if "urn:xmpp:carbons:2" in self.offered:
            await self.plugin["xep_0280"].enable()
        self.send_presence(pstatus="here")

    def has(self, what, offered):
        """Whether the server offers it; what isn't offered is told, so that nobody takes it for tested."""
        if not offered:
            step(f"NOT OFFERED: {what}")
        return offered

    async def sees_presence(self, jid, kind, status=None):
        def fits(event, data):
            return (event == "presence" and data["from"].bare == jid and data["type"] == kind
                    and (status is None or data["status"] == status))
        return await self.sees(f"{jid} {kind} {status or ''}".rstrip(), fits)

    async def sees_message(self, jid, body):
        return await self.sees(f"'{body}' of {jid}", lambda event, data:
                               event == "message" and data["from"].bare == jid and data["body"] == body)

    async def sees_contact(self, jid, subscription):
        """Waits until the roster says so: pushes of the states between may come or not."""
        def fits(event, data):
            return event == "roster_update" and data["roster"]["items"].get(slixmpp.JID(jid), {}).get("subscription") == subscription
        return await self.sees(f"{jid} in the roster: {subscription}", fits)

    async def log_out(self):
        self.send_presence(ptype="unavailable", pstatus="gone home")
        await self.disconnect()
        step(f"{self.name} left")


async def befriend(one, other):
    """Subscribes both ways, by hand, as RFC 6121 section 3.1 tells it."""
    one_jid, other_jid = one.boundjid.bare, other.boundjid.bare
    for asking, asked, asking_jid, asked_jid in [(one, other, one_jid, other_jid), (other, one, other_jid, one_jid)]:
        asking.send_presence_subscription(asked_jid)
        await asked.sees_presence(asking_jid, "subscribe")
        asked.send_presence_subscription(asking_jid, ptype="subscribed")
        await asking.sees_presence(asked_jid, "subscribed")
        await asking.sees_presence(asked_jid, "available", "here")
    await one.sees_contact(other_jid, "both")
    await other.sees_contact(one_jid, "both")
