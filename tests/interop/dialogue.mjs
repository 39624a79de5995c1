// The dialogue that every JavaScript client holds, and how it waits for what is to be seen.
//
// A client gives a Person with: jid, logIn(), presence({show, status}), subscribe(jid), approve(jid), message(to, body), logOut();
// and calls came() with all that it gets: {what: "presence", from, type, show, status}, {what: "message", from, body},
// {what: "contact", jid, subscription}. Presence has type "available" when the client says nothing else.

const PATIENCE = 15_000;
const started = performance.now();

export function step(text) {
    console.log(`${((performance.now() - started) / 1000).toFixed(2).padStart(7)}  ${text}`);
}

export const bare = (jid) => jid.split("/")[0];

export class Person {
    #seen = [];
    #wake = () => {};

    constructor(jid) {
        this.jid = jid;
        this.name = jid.replace(/\d*@.*/, "");
    }

    came(event) {
        this.#seen.push(event);
        this.#wake();
    }

    // Waits for the first event with these members, and takes it away.
    async sees(members) {
        const fits = (event) => Object.entries(members).every(([name, value]) => event[name] === value);
        const end = performance.now() + PATIENCE;
        for (;;) {
            const index = this.#seen.findIndex(fits);
            if (index >= 0) {
                step(`${this.name} sees ${Object.values(members).join(" ")}`);
                return this.#seen.splice(index, 1)[0];
            }
            const left = end - performance.now();
            if (left <= 0) {
                throw new Error(`${this.name} never saw ${JSON.stringify(members)}; what came: ${JSON.stringify(this.#seen, null, 1)}`);
            }
            let timer;
            await new Promise((wake) => {
                this.#wake = wake;
                timer = setTimeout(wake, left);
            });
            clearTimeout(timer);
        }
    }

    seesPresence(jid, members) {
        return this.sees({ what: "presence", bare: jid, ...members });
    }
}

// `one` asks, `other` answers, as RFC 6121 section 3.1 tells it.
async function follow(one, other) {
    await one.subscribe(other.jid);
    await other.seesPresence(one.jid, { type: "subscribe" });
    await other.approve(one.jid);
    await one.seesPresence(other.jid, { type: "subscribed" });
    await one.seesPresence(other.jid, { type: "available", status: "here" });
}

// Both log in, and see each other from then on.
export async function befriend(alice, bob) {
    await Promise.all([alice.logIn(), bob.logIn()]);
    step("both have a session");
    await Promise.all([alice.presence({ status: "here" }), bob.presence({ status: "here" })]);
    await follow(alice, bob);
    await follow(bob, alice);
    await alice.sees({ what: "contact", jid: bob.jid, subscription: "both" });
    await bob.sees({ what: "contact", jid: alice.jid, subscription: "both" });
}

export async function dialogue(alice, bob) {
    await befriend(alice, bob);
    await bob.presence({ show: "away", status: "gone fishing" });
    await alice.seesPresence(bob.jid, { type: "available", show: "away", status: "gone fishing" });
    await alice.message(bob.jid, "hi bob, a<b & 'ü' 🐟");
    await bob.sees({ what: "message", bare: alice.jid, body: "hi bob, a<b & 'ü' 🐟" });
    await bob.message(alice.jid, "hi alice");
    await alice.sees({ what: "message", bare: bob.jid, body: "hi alice" });
    await bob.presence({ status: "back" });
    await alice.seesPresence(bob.jid, { type: "available", show: "", status: "back" });
    await bob.logOut();
    await alice.seesPresence(bob.jid, { type: "unavailable" });
    await alice.logOut();
    step("both left");
}

// What a program does that holds one dialogue: any failure ends it, with a line that says why.
export async function run(hold) {
    const overdue = setTimeout(() => {
        console.error("FAILED: took too long");
        process.exit(1);
    }, 50_000);
    try {
        await hold();
        clearTimeout(overdue);
        process.exit(0);
    } catch (error) {
        console.error("FAILED:", error);
        process.exit(1);
    }
}
