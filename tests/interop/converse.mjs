// The dialogue by converse.js, two of them in headless Chromium: WEB-SOCKET-URL ALICE BOB. What a person sees is what converse.js
// shows in its page; what they do is what its own buttons call.
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { Person, dialogue, run } from "./dialogue.mjs";
import { load } from "./tools.mjs";

const puppeteer = (await load("puppeteer-core")).default;
const [service, ...jids] = process.argv.slice(2);
const TYPES = { ".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".json": "application/json" };
const OURS = { "/": "converse.html", "/page.js": "converse_page.mjs" };
const DIST = join(process.env.INTEROP_TOOLS, "converse");

// The page comes from the server's own address, as far as the browser can tell: nobody has to let another origin in.
const origin = service.replace(/^ws/, "http").replace(/\/[^/]*$/, "");

async function answer(request) {
    const path = normalize(new URL(request.url()).pathname);
    const file = OURS[path] ? new URL(OURS[path], import.meta.url) : join(DIST, path);
    try {
        await request.respond({ contentType: TYPES[extname(path)] ?? TYPES[".html"], body: await readFile(file) });
    } catch {
        await request.respond({ status: 404, body: "" });
    }
}

class Converse extends Person {
    constructor(jid, browser) {
        super(jid);
        this.browser = browser;
    }

    async logIn() {
        const context = await this.browser.createBrowserContext();
        this.page = await context.newPage();
        this.page.on("pageerror", (error) => console.error(`${this.name}: ${error.stack}`));
        await this.page.setRequestInterception(true);
        this.page.on("request", answer);
        await this.page.exposeFunction("came", (event) => this.came(event));
        await this.page.goto(`${origin}/`);
        await this.page.evaluate((settings) => globalThis.logIn(settings),
            { jid: `${this.jid}/converse`, password: process.env.INTEROP_PASSWORD, websocket_url: service });
        await this.sees({ what: "session", jid: this.jid });
    }

    // What came has to be shown, too.
    async seesPresence(jid, members) {
        await super.seesPresence(jid, members);
        if (members.type === "unavailable") await this.sees({ what: "shown", jid, status: "offline" });
        if (members.type === "available") await this.sees({ what: "shown", jid, status: members.show || "online" });
    }

    #does(name, ...values) {
        return this.page.evaluate((name, values) => globalThis.person[name](...values), name, values);
    }

    presence({ show, status }) {
        return this.#does("presence", show, status);
    }

    subscribe(jid) {
        return this.#does("subscribe", jid);
    }

    approve(jid) {
        return this.#does("approve", jid);
    }

    message(to, body) {
        return this.#does("message", to, body);
    }

    logOut() {
        return this.#does("logOut");
    }
}

await run(async () => {
    // A page that was answered for here seems to come from nowhere, and Chromium keeps such pages from loopback addresses.
    const args = ["--no-sandbox", "--disable-gpu", "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets"];
    const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args });
    try {
        await dialogue(...jids.map((jid) => new Converse(jid, browser)));
    } finally {
        await browser.close();
    }
});
