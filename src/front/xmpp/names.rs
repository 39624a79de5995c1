//! The names of XMPP: namespaces, as the documents print them.

pub const CLIENT: &str = "jabber:client";
pub const STREAM: &str = "http://etherx.jabber.org/streams";
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
pub const SASL2: &str = "urn:xmpp:sasl:2";
pub const BIND2: &str = "urn:xmpp:bind:0";
pub const FAST: &str = "urn:xmpp:fast:0";
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// RFC 3921 3.
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// RFC 7395 3.3.
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
pub const REGISTER: &str = "jabber:iq:register";
pub const ROSTER: &str = "jabber:iq:roster";
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
pub const LAST: &str = "jabber:iq:last";
pub const BLOCKING: &str = "urn:xmpp:blocking";
pub const CARBONS: &str = "urn:xmpp:carbons:2";
pub const ACTIVITY: &str = "urn:xmpp:csi:0";
pub const VCARD: &str = "vcard-temp";
pub const PRIVATE: &str = "jabber:iq:private";
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
pub const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// XEP-0004.
pub const DATA: &str = "jabber:x:data";
pub const VERSION: &str = "jabber:iq:version";
pub const CAPS: &str = "http://jabber.org/protocol/caps";
pub const MANAGEMENT: &str = "urn:xmpp:sm:3";
pub const PING: &str = "urn:xmpp:ping";
pub const TIME: &str = "urn:xmpp:time";
pub const DELAY: &str = "urn:xmpp:delay";
pub const IDLE: &str = "urn:xmpp:idle:1";
