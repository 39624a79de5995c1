// The dialogue in fanal.json.v1, as schemas/JSON.md has it, over a bare WebSocket: URL ALICE BOB.
import { Person, bare, dialogue, run, step } from "./dialogue.mjs";
import { load } from "./tools.mjs";

const { default: WebSocket } = await load("ws");
const [url, ...jids] = process.argv.slice(2);

class Bare extends Person {
    #asked = new Map();
    #last = 0;

    constructor(jid, password = process.env.INTEROP_PASSWORD) {
        super(jid);
        this.password = password;
        this.ended = new Promise((ended) => {
            this.end = ended;
        });
    }

    #read(message) {
        const { type, id } = message;
        const asked = this.#asked.get(id);
        if (id !== undefined && asked) {
            this.#asked.delete(id);
            return type === "error" ? asked.failed(Object.assign(new Error(message.name), message)) : asked.done(message);
        }
        if (type === "event") {
            const { show = "available", status = "" } = message.presence;
            if (message.last) return undefined;
            const gone = show === "unavailable";
            const common = { what: "presence", from: message.jid, bare: message.jid, status };
            return this.came({ ...common, type: gone ? show : "available", show: show === "available" ? "" : show });
        }
        if (type === "subscription_event") return this.came({ what: "presence", bare: message.jid, type: message.action });
        if (type === "message") return this.came({ what: "message", bare: bare(message.from), body: message.body });
        if (type === "roster_push") return this.came({ what: "contact", ...message.item });
        return this.came({ what: type, ...message });
    }

    ask(message) {
        const id = ++this.#last;
        return new Promise((done, failed) => {
            this.#asked.set(id, { done, failed });
            this.socket.send(JSON.stringify({ ...message, id }));
        });
    }

    async logIn() {
        this.socket = new WebSocket(url, "fanal.json.v1");
        this.socket.on("message", (data) => this.#read(JSON.parse(data)));
        this.socket.on("close", (code) => this.end(code));
        this.socket.on("error", (error) => this.came({ what: "broken", text: String(error) }));
        const { domain, mechanisms } = await this.sees({ what: "hello", type: "hello" });
        if (domain !== "localhost" || !mechanisms.includes("PLAIN")) throw new Error(`hello: ${domain}, ${mechanisms}`);
        const credentials = Buffer.from(`\0${this.jid.split("@")[0]}\0${this.password}`).toString("base64");
        const answer = await this.ask({ type: "log_in", jid: this.jid, mechanism: "PLAIN", data: credentials, resource: "page" });
        if (answer.type !== "logged_in" || answer.jid !== `${this.jid}/page`) throw new Error(JSON.stringify(answer));
        const roster = await this.ask({ type: "roster_get" });
        if (roster.type !== "roster") throw new Error(JSON.stringify(roster));
        if ((await this.ask({ type: "ping" })).type !== "pong") throw new Error("no pong");
    }

    async #done(message) {
        const answer = await this.ask(message);
        if (answer.type !== "done") throw new Error(JSON.stringify(answer));
    }

    presence(presence) {
        return this.#done({ type: "set_presence", presence });
    }

    subscribe(jid) {
        return this.#done({ type: "subscription", action: "subscribe", jid });
    }

    approve(jid) {
        return this.#done({ type: "subscription", action: "subscribed", jid });
    }

    message(to, body) {
        return this.#done({ type: "message", to, kind: "chat", body });
    }

    async logOut() {
        await this.#done({ type: "log_out", status: "gone home" });
        this.socket.close(1000);
        const code = await this.ended;
        if (code !== 1000) throw new Error(`closed with ${code}`);
    }
}

await run(async () => {
    const mallory = new Bare(jids[0], "wrong");
    const refusal = await mallory.logIn().then(() => null, (error) => error);
    if (refusal?.name !== "log_in_failed") throw refusal ?? new Error("a wrong password is accepted");
    step("a wrong password is refused");
    mallory.socket.close();
    await dialogue(...jids.map((jid) => new Bare(jid)));
});
