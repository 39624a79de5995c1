// The dialogue by @xmpp/client (xmpp.js): SERVICE ALICE BOB.
import { dialogue, run, step } from "./dialogue.mjs";
import { XmppJs, xml } from "./xmpp_js.mjs";

const [service, ...jids] = process.argv.slice(2);

// xmpp.js waits in start() for two promises in turn; a refusal that comes early ends the second before anybody looks at it.
process.on("unhandledRejection", (error) => {
    if (error.condition !== "not-authorized") throw error;
});

async function strangerIsRefused(jid) {
    const mallory = new XmppJs(service, jid, "wrong");
    mallory.client.reconnect.stop();
    await mallory.client.start().then(() => Promise.reject(new Error("a wrong password is accepted")), (error) => {
        if (error.condition !== "not-authorized") throw error;
        step("a wrong password is refused");
    });
    await mallory.client.stop();
}

// XEP-0388, 0386, 0484: xmpp.js logs in in one go wherever that is offered, and asks for a token with it.
async function comesBackByToken(jid) {
    const first = new XmppJs(service, jid);
    const said = [];
    let token;
    first.client.on("nonza", (element) => said.push(element));
    first.client.fast.saveToken = async (given) => void (token = given);
    await first.client.start();
    await first.client.stop();
    const success = said.find((element) => element.is("success", "urn:xmpp:sasl:2"));
    if (!token) return console.log("NOT OFFERED: log-in in one go by token (XEP-0484)");
    if (!success?.getChild("bound", "urn:xmpp:bind:0")?.getChild("enabled", "urn:xmpp:sm:3")) {
        throw new Error(`no managed session in ${success}`);
    }
    step("logged in in one go");
    const second = new XmppJs(service, jid, "not the password");
    second.client.fast.fetchToken = async () => token;
    await second.client.start();
    await second.client.iqCaller.get(xml("ping", { xmlns: "urn:xmpp:ping" }), "localhost");
    await second.client.stop();
    step("came back by token, without the password");
}

await run(async () => {
    await strangerIsRefused(jids[0]);
    await comesBackByToken(jids[0]);
    await dialogue(...jids.map((jid) => new XmppJs(service, jid)));
});
