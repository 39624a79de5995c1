// The dialogue by strophe.js over a WebSocket (RFC 7395): URL ALICE BOB.
import { Person, bare, dialogue, run, step } from "./dialogue.mjs";
import { load } from "./tools.mjs";

const { Strophe, $iq, $msg, $pres } = await load("strophe.js");
const [service, ...jids] = process.argv.slice(2);
const { Status } = Strophe;

const text = (stanza, name) => stanza.getElementsByTagName(name)[0]?.textContent ?? "";

class Strophic extends Person {
    constructor(jid) {
        super(jid);
        this.connection = new Strophe.Connection(service);
        const handle = (read, ...which) => this.connection.addHandler((stanza) => {
            read(stanza);
            return true;
        }, ...which);
        this.handle = () => {
            handle((stanza) => this.#presence(stanza), null, "presence");
            handle((stanza) => this.#message(stanza), null, "message");
            handle((stanza) => this.#push(stanza), Strophe.NS.ROSTER, "iq", "set");
        };
    }

    #common(stanza) {
        const from = stanza.getAttribute("from") ?? "";
        return { from, bare: bare(from) };
    }

    #presence(stanza) {
        const type = stanza.getAttribute("type") ?? "available";
        this.came({ what: "presence", ...this.#common(stanza), type, show: text(stanza, "show"), status: text(stanza, "status") });
    }

    #message(stanza) {
        this.came({ what: "message", ...this.#common(stanza), body: text(stanza, "body") });
    }

    #push(stanza) {
        for (const item of stanza.getElementsByTagName("item")) {
            this.came({ what: "contact", jid: item.getAttribute("jid"), subscription: item.getAttribute("subscription") });
        }
        this.connection.send($iq({ type: "result", id: stanza.getAttribute("id") }));
    }

    #ask(iq) {
        return new Promise((done, failed) => {
            this.connection.sendIQ(iq, done, (answer) => failed(new Error(`refused: ${answer}`)), 10_000);
        });
    }

    // Resolves with the first of these states that the connection comes to.
    connect(password, ...states) {
        return new Promise((done) => {
            this.connection.connect(`${this.jid}/strophe`, password, (status) => {
                if (status === Status.CONNECTED) this.handle();
                if (states.includes(status)) done(status);
            });
        });
    }

    async logIn() {
        const status = await this.connect(process.env.INTEROP_PASSWORD, Status.CONNECTED, Status.AUTHFAIL, Status.CONNFAIL);
        if (status !== Status.CONNECTED) throw new Error(`log-in ended in state ${status}`);
        await this.#ask($iq({ type: "get" }).c("query", { xmlns: Strophe.NS.ROSTER }));
        await this.#ask($iq({ type: "get", to: "localhost" }).c("ping", { xmlns: "urn:xmpp:ping" }));
    }

    presence({ show, status }) {
        const presence = $pres();
        if (show) presence.c("show").t(show).up();
        this.connection.send(presence.c("status").t(status));
    }

    subscribe(to) {
        this.connection.send($pres({ to, type: "subscribe" }));
    }

    approve(to) {
        this.connection.send($pres({ to, type: "subscribed" }));
    }

    message(to, body) {
        this.connection.send($msg({ to, type: "chat" }).c("body").t(body));
    }

    logOut() {
        this.connection.disconnect("gone home");
    }
}

await run(async () => {
    const mallory = new Strophic(jids[0]);
    if (await mallory.connect("wrong", Status.CONNECTED, Status.AUTHFAIL) !== Status.AUTHFAIL) {
        throw new Error("a wrong password is accepted");
    }
    step("a wrong password is refused");
    await dialogue(...jids.map((jid) => new Strophic(jid)));
});
