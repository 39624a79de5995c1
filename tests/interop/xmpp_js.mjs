// A user of @xmpp/client (xmpp.js) for the dialogues. It takes STARTTLS wherever it is offered.
import { Person, bare } from "./dialogue.mjs";
import { load } from "./tools.mjs";

// Node 20 has no WebSocket of its own, as browsers do.
globalThis.WebSocket ??= (await load("ws")).default;
const { client, xml } = await load("@xmpp/client");
export { xml };
const ROSTER = "jabber:iq:roster";
const AGENT = xml("user-agent", { id: "1f6c7ba4-4d2c-4f0d-8a57-interop00001" });

export class XmppJs extends Person {
    constructor(service, jid, password = process.env.INTEROP_PASSWORD) {
        super(jid);
        const [username, domain] = jid.split("@");
        this.client = client({ service, domain, username, password, resource: "xmpp.js", userAgent: AGENT });
        // xmpp.js waits for the stream's opening once its own has been flushed; by then, a server so near has answered, and nobody
        // has heard it. So it is not to wait for the flush.
        const write = this.client.write.bind(this.client);
        this.client.write = async (text) => void write(text).catch((error) => this.client.emit("error", error));
        this.client.on("error", (error) => this.came({ what: "error", text: String(error), condition: error.condition }));
        this.client.on("stanza", (stanza) => this.#read(stanza));
        // xmpp.js answers IQs that it has no handler for by itself, so this one is for roster pushes.
        this.client.iqCallee.set(ROSTER, "query", ({ element }) => {
            this.#contacts(element);
            return true;
        });
    }

    #contacts(query) {
        for (const item of query.getChildren("item")) {
            this.came({ what: "contact", jid: item.attrs.jid, subscription: item.attrs.subscription });
        }
    }

    #read(stanza) {
        const from = stanza.attrs.from ?? "";
        const common = { from, bare: bare(from) };
        if (stanza.is("presence")) {
            const { type = "available" } = stanza.attrs;
            const show = stanza.getChildText("show") ?? "";
            this.came({ what: "presence", ...common, type, show, status: stanza.getChildText("status") ?? "" });
        } else if (stanza.is("message")) {
            this.came({ what: "message", ...common, body: stanza.getChildText("body") });
        }
    }

    async logIn() {
        const address = await this.client.start();
        if (bare(address.toString()) !== this.jid) throw new Error(`logged in as ${address}`);
        this.#contacts(await this.client.iqCaller.get(xml("query", { xmlns: ROSTER })));
        await this.client.iqCaller.get(xml("ping", { xmlns: "urn:xmpp:ping" }), "localhost");
    }

    presence({ show, status }) {
        return this.client.send(xml("presence", {}, show && xml("show", {}, show), xml("status", {}, status)));
    }

    subscribe(to) {
        return this.client.send(xml("presence", { type: "subscribe", to }));
    }

    approve(to) {
        return this.client.send(xml("presence", { type: "subscribed", to }));
    }

    message(to, body) {
        return this.client.send(xml("message", { type: "chat", to }, xml("body", {}, body)));
    }

    logOut() {
        return this.client.stop();
    }
}
