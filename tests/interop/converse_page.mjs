// Runs in the page, beside converse.js: tells `came` (of converse.mjs) what it gets and shows, and does what its buttons do.
import converse from "/converse.min.js";

const bare = (jid) => (jid ?? "").split("/")[0];
const text = (stanza, name) => stanza.querySelector(`:scope > ${name}`)?.textContent ?? "";

converse.plugins.add("interop", {
    initialize() {
        const { _converse } = this;
        const { api } = _converse;
        const contact = (jid) => _converse.state.roster.get(jid);

        function hear(stanza) {
            const from = stanza.getAttribute("from") ?? "";
            const type = stanza.getAttribute("type") ?? "available";
            window.came({ what: "presence", from, bare: bare(from), type, show: text(stanza, "show"), status: text(stanza, "status") });
            return true;
        }

        api.listen.on("connected", () => api.connection.get().addHandler(hear, null, "presence"));
        api.listen.on("rosterContactsFetched", () => window.came({ what: "session", jid: bare(api.connection.get().jid) }));
        api.listen.on("contactPresenceChanged", (changed) => {
            window.came({ what: "shown", jid: changed.get("jid"), status: changed.getStatus() });
        });
        api.listen.on("rosterPush", (iq) => {
            for (const item of iq.querySelectorAll("item")) {
                window.came({ what: "contact", jid: item.getAttribute("jid"), subscription: item.getAttribute("subscription") });
            }
        });
        api.listen.on("message", ({ attrs }) => window.came({ what: "message", bare: bare(attrs.from), body: attrs.body }));

        window.person = {
            // As its form for that does; api.user.status.set() of converse.js 14 makes dnd of away.
            presence: (show, status_message) => void _converse.state.profile.save({ show, presence: "online", status_message }),
            subscribe: async (jid) => {
                if (contact(jid)) contact(jid).subscribeToPresence();
                else await api.contacts.add({ jid });
            },
            approve: (jid) => void contact(jid).authorize(),
            message: async (to, body) => void (await (await api.chats.open(to, {}, true)).sendMessage({ body })),
            logOut: () => api.user.logout(),
        };
    },
});

window.logIn = (settings) => {
    converse.initialize({
        ...settings,
        authentication: "login",
        auto_login: true,
        auto_reconnect: false,
        discover_connection_methods: false,
        i18n: "en",
        assets_path: "/",
        persistent_store: "sessionStorage",
        view_mode: "fullscreen",
        whitelisted_plugins: ["interop"],
    });
};
