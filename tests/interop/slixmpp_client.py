"""The dialogue by slixmpp: MODE (plain, starttls, tls) ADDRESS ALICE BOB."""
import asyncio
import sys

from patience import step
from person import PASSWORD, Person, befriend

MODE, ADDRESS, ALICE, BOB = sys.argv[1:]


async def stranger_is_refused():
    mallory = Person(ALICE, MODE, ADDRESS, password=PASSWORD + "?")
    mallory.connect(mallory.address[0], int(mallory.address[1]))
    await mallory.sees("a refusal of the wrong password", lambda event, _: event == "failed_auth")
    mallory.abort()


async def server_answers(alice):
    """What clients ask a server at log-in."""
    await alice.plugin["xep_0199"].ping("localhost")
    for feature in ["http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "urn:xmpp:ping"]:
        assert feature in alice.offered, f"the server does not list {feature}: {alice.offered}"
    await alice.plugin["xep_0030"].get_items("localhost")
    step("alice sees ping and disco of the server")
    if alice.has("version (XEP-0092)", "jabber:iq:version" in alice.offered):
        assert (await alice.plugin["xep_0092"].get_version("localhost"))["software_version"]["name"], "a server without a name"
        step("alice sees the server's version")
    if alice.has("time (XEP-0202)", "urn:xmpp:time" in alice.offered):
        # slixmpp 1.17 cannot parse what it gets here: it appends the Z that is there already.
        answer = (await alice.plugin["xep_0202"].get_entity_time("localhost")).xml
        assert answer.findtext(".//{urn:xmpp:time}utc").endswith("Z"), "a server without a clock"
        step("alice sees the server's time")


async def clients_ask_each_other(alice, bob):
    await alice.plugin["xep_0199"].ping(bob.boundjid)
    info = await alice.plugin["xep_0030"].get_info(bob.boundjid)
    assert info["disco_info"]["features"], f"no features of bob: {info}"
    step("alice sees what bob's client can do")


async def personal_eventing(alice, bob):
    """XEP-0163: a contact whose client wants to hear of it is told what is published."""
    account = await alice.plugin["xep_0030"].get_info(alice.boundjid.bare)
    offered = any(identity[:2] == ("pubsub", "pep") for identity in account["disco_info"]["identities"])
    if not alice.has("personal eventing (XEP-0163)", offered):
        return
    await alice.plugin["xep_0107"].publish_mood("happy", "it works")
    await bob.sees("alice's mood", lambda event, data: event == "user_mood_publish" and data["from"].bare == ALICE)


async def second_device(alice, bob):
    """Another session of alice: sees bob, sees herself, and gets copies of her messages (XEP-0280)."""
    carbons = alice.has("message carbons (XEP-0280)", "urn:xmpp:carbons:2" in alice.offered)
    desk = Person(ALICE + "/desk", MODE, ADDRESS)
    await desk.log_in()
    await desk.sees_presence(BOB, "available", "gone fishing")
    await desk.sees_presence(ALICE, "available", "here")
    await bob.sees("alice's desk", lambda event, data: event == "presence" and data["from"].resource == "desk")
    alice.send_message(BOB, "from the phone", mtype="chat")
    await bob.sees_message(ALICE, "from the phone")
    bob.send_message(alice.boundjid, "to the phone", mtype="chat")
    await alice.sees_message(BOB, "to the phone")
    if carbons:
        await desk.sees("the copy of alice's message", lambda event, data:
                        event == "carbon_sent" and data["carbon_sent"]["body"] == "from the phone")
        await desk.sees("the copy of bob's message", lambda event, data:
                        event == "carbon_received" and data["carbon_received"]["body"] == "to the phone")
    await desk.log_out()
    await bob.sees("alice's desk leave", lambda event, data:
                   event == "presence" and data["type"] == "unavailable" and data["from"].resource == "desk")


async def inactive_client(alice, bob):
    """XEP-0352: nothing but messages while nobody looks, then at once what is so now."""
    if not alice.has("client state (XEP-0352)", alice.plugin["xep_0352"].enabled):
        return
    alice.plugin["xep_0352"].send_inactive()
    await alice.plugin["xep_0199"].ping("localhost")
    for status in ["one", "two", "three"]:
        bob.send_presence(pstatus=status)
    await bob.plugin["xep_0199"].ping("localhost")
    alice.plugin["xep_0352"].send_active()
    await alice.sees_presence(BOB, "available", "three")


async def blocking(alice, bob):
    """XEP-0191: to the blocked, the blocker is offline."""
    if not alice.has("blocking (XEP-0191)", "urn:xmpp:blocking" in alice.offered):
        return
    await alice.plugin["xep_0191"].block(BOB)
    await bob.sees_presence(ALICE, "unavailable")
    await alice.plugin["xep_0191"].unblock(BOB)
    await bob.sees_presence(ALICE, "available")


async def broken_line(alice, bob):
    """XEP-0198: the line breaks, bob notices nothing, and alice gets what she missed."""
    if not alice.has("stream management (XEP-0198)", "stream_management" in alice.features):
        return
    alice.transport.abort()
    await alice.sees("the line break", lambda event, _: event == "disconnected")
    bob.send_message(ALICE, "are you there?", mtype="chat")
    bob.send_presence(pstatus="waiting")
    await bob.plugin["xep_0199"].ping("localhost")
    alice.connect(alice.address[0], int(alice.address[1]))
    await alice.sees("its session resumed", lambda event, _: event == "session_resumed")
    await alice.sees_message(BOB, "are you there?")
    await alice.sees_presence(BOB, "available", "waiting")
    alice.send_message(BOB, "I am", mtype="chat")
    await bob.sees_message(ALICE, "I am")


async def message_waits(alice):
    """XEP-0160: who is away gets the message later, and is told when it was sent."""
    alice.send_message(BOB, "while you were out", mtype="chat")
    await alice.plugin["xep_0199"].ping("localhost")
    bob = Person(BOB + "/desk", MODE, ADDRESS)
    await bob.log_in()
    message = await bob.sees_message(ALICE, "while you were out")
    assert message["delay"]["stamp"], f"no delay in {message}"
    await alice.sees_presence(BOB, "available", "here")
    await bob.log_out()
    await alice.sees_presence(BOB, "unavailable", "gone home")


async def last_seen(alice):
    if alice.has("last activity (XEP-0012)", "jabber:iq:last" in alice.offered):
        seconds = (await alice.plugin["xep_0012"].get_last_activity(BOB))["last_activity"]["seconds"]
        assert 0 <= int(seconds) < 60, f"last seen {seconds} seconds ago"
        step("alice sees when bob was there last")


async def main():
    await stranger_is_refused()
    alice, bob = Person(ALICE + "/phone", MODE, ADDRESS), Person(BOB + "/desk", MODE, ADDRESS)
    await asyncio.gather(alice.log_in(), bob.log_in())
    await server_answers(alice)
    await befriend(alice, bob)
    bob.send_presence(pshow="away", pstatus="gone fishing")
    seen = await alice.sees_presence(BOB, "away", "gone fishing")
    assert seen["from"].full == bob.boundjid.full, f"from {seen['from']}"
    alice.send_message(BOB, "hi bob", mtype="chat")
    await bob.sees_message(ALICE, "hi bob")
    bob.send_message(alice.boundjid, "hi alice", mtype="chat")
    await alice.sees_message(BOB, "hi alice")
    await clients_ask_each_other(alice, bob)
    await personal_eventing(alice, bob)
    bob.send_presence(pstatus="gone fishing")
    await alice.sees_presence(BOB, "available", "gone fishing")
    await second_device(alice, bob)
    await inactive_client(alice, bob)
    await blocking(alice, bob)
    await broken_line(alice, bob)
    await bob.log_out()
    await alice.sees_presence(BOB, "unavailable", "gone home")
    await message_waits(alice)
    await last_seen(alice)
    await alice.log_out()


asyncio.run(main())
