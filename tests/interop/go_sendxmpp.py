"""What go-sendxmpp can do, one-shot sender and listener that it is, with a user of slixmpp to talk to: MODE (starttls, tls) ADDRESS
ALICE BOB."""
import asyncio
import os
import sys

from patience import PATIENCE, step
from person import CERTIFICATE, PASSWORD, Person

MODE, ADDRESS, ALICE, BOB = sys.argv[1:]
COMMAND = ["go-sendxmpp", "-u", ALICE, "-p", PASSWORD, "-j", ADDRESS, *(["-t"] if MODE == "tls" else [])]
ENVIRONMENT = {**os.environ, "SSL_CERT_FILE": CERTIFICATE}


async def start(*words):
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*COMMAND, *words, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)


async def sends(text, *words):
    program = await start(*words)
    said, _ = await asyncio.wait_for(program.communicate(text.encode()), PATIENCE)
    if program.returncode != 0:
        raise SystemExit(f"FAILED: go-sendxmpp {' '.join(words)}: {said.decode()}")


async def prints(program, text):
    """Waits for a line with that text."""
    said = []
    try:
        async with asyncio.timeout(PATIENCE):
            while text not in (said[-1] if said else ""):
                line = await program.stdout.readline()
                if not line:
                    raise TimeoutError
                said.append(line.decode())
    except TimeoutError:
        raise SystemExit(f"FAILED: go-sendxmpp never printed '{text}', but: {said}") from None
    step(f"go-sendxmpp prints '{text}'")


async def main():
    bob = Person(BOB + "/desk", MODE, ADDRESS)
    await bob.log_in()
    await sends("hi bob", BOB)
    await bob.sees_message(ALICE, "hi bob")
    bob.send_presence_subscription(ALICE)
    await sends(f"<presence type='subscribed' to='{BOB}'/>", "--raw")
    await bob.sees_presence(ALICE, "subscribed")
    await bob.sees_presence(ALICE, "available")
    await bob.sees_presence(ALICE, "unavailable")
    listener = await start("-l")
    try:
        await bob.sees_presence(ALICE, "available")
        bob.send_message(ALICE, "hi alice", mtype="chat")
        await prints(listener, "hi alice")
    finally:
        listener.terminate()
        await listener.wait()
    await bob.sees_presence(ALICE, "unavailable")
    await bob.log_out()


asyncio.run(main())
