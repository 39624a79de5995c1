// @xmpp/client (xmpp.js) is told to move, and follows by itself (RFC 6120 4.9.3.19): SERVICE ADMIN OTHER OTHER-ADMIN ALICE BOB.
// Alice is on the node SERVICE, bob on the node whose door is at OTHER; ADMIN and OTHER-ADMIN are the operators' addresses.
import { befriend, run, step } from "./dialogue.mjs";
import { XmppJs } from "./xmpp_js.mjs";

const [service, admin, other, otherAdmin, ...jids] = process.argv.slice(2);

async function operator(address, path, order) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(`http://${address}/${path}`, { method: "POST", headers, body: JSON.stringify(order) });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
}

// Both have accounts there, too, and are friends.
async function prepareOther() {
    for (const jid of jids) await operator(otherAdmin, "users", { jid, password: process.env.INTEROP_PASSWORD });
    const [alice, bob] = jids.map((jid) => new XmppJs(`xmpp://${other}`, jid));
    await befriend(alice, bob);
    await alice.logOut();
    await bob.seesPresence(alice.jid, { type: "unavailable" });
    return bob;
}

await run(async () => {
    const bob = await prepareOther();
    const alice = new XmppJs(service, jids[0]);
    // As programs do: whenever there is a session, presence is said.
    let sessions = 0;
    alice.client.on("online", () => alice.presence({ status: `session ${++sessions}` }));
    await alice.logIn();
    const { sessions: told } = await operator(admin, "transfer", { jid: alice.jid, address: other });
    if (told !== 1) throw new Error(`${told} sessions were told to move`);
    step("alice is told to move");
    await bob.seesPresence(alice.jid, { type: "available", status: "session 2" });
    await alice.seesPresence(bob.jid, { type: "available", status: "here" });
    await bob.presence({ status: "welcome" });
    await alice.seesPresence(bob.jid, { type: "available", status: "welcome" });
    await alice.logOut();
    await bob.seesPresence(alice.jid, { type: "unavailable" });
    await bob.logOut();
    step("both left");
});
