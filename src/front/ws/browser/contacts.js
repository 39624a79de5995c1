// Who is in the roster, and who is there.

/** Sessions of one publisher that are kept in mind; beyond it the oldest is forgotten. */
const SESSIONS_KEPT = 64;
/** From there to gone, best first. */
const ORDER = ['chat', 'available', 'away', 'extended_away', 'do_not_disturb'];

export class Contacts {
  #items = new Map();
  /** By bare JID: by number of the session, its newest event. */
  #sessions = new Map();
  /** By bare JID: the last presence of somebody who is not there. */
  #last = new Map();
  #gathering = [];

  /** The roster, sorted by JID: each item as in schemas/JSON.md, with `presence` and `sessions`. */
  list() {
    const items = [...this.#items.values()].sort((a, b) => (a.jid < b.jid ? -1 : 1));
    return items.map((item) => ({ ...item, presence: this.presence(item.jid), sessions: this.sessions(item.jid) }));
  }

  get(jid) {
    const item = this.#items.get(jid);
    return item && { ...item, presence: this.presence(jid), sessions: this.sessions(jid) };
  }

  /** The presence of each session of somebody. */
  sessions(jid) {
    return [...(this.#sessions.get(jid)?.values() ?? [])].map((event) => event.presence);
  }

  /** The presence that tells best whether somebody is there: of the highest priority, and the liveliest of these. */
  presence(jid) {
    const better = (a, b) => (b.priority ?? 0) - (a.priority ?? 0) || ORDER.indexOf(a.show) - ORDER.indexOf(b.show);
    return this.sessions(jid).sort(better)[0] ?? this.#last.get(jid) ?? { show: 'unavailable' };
  }

  /** Takes a piece of the roster. Gives whether it was the last. */
  roster({ items = [], more = false }) {
    this.#gathering.push(...items);
    if (more) return false;
    this.#items = new Map(this.#gathering.map((item) => [item.jid, item]));
    this.#gathering = [];
    return true;
  }

  push(item) {
    // A push between two pieces is newer than both.
    this.#gathering = this.#gathering.filter((older) => older.jid !== item.jid);
    if (item.removed) this.#items.delete(item.jid);
    else this.#items.set(item.jid, item);
  }

  /** Takes an event. Gives whether it was news: older ones may come late, or again. */
  event(event) {
    const { jid, session, presence, last } = event;
    if (last) {
      this.#last.set(jid, presence);
      return true;
    }
    const sessions = this.#sessions.get(jid) ?? new Map();
    const seen = sessions.get(session);
    const gone = presence.show === 'unavailable';
    if (seen && !(isNewer(event, seen) || (gone && !isNewer(seen, event)))) return false;
    if (gone) {
      sessions.delete(session);
      this.#last.set(jid, presence);
    } else {
      if (!seen && sessions.size === SESSIONS_KEPT) sessions.delete(Math.min(...sessions.keys()));
      sessions.set(session, event);
      this.#sessions.set(jid, sessions);
    }
    if (sessions.size === 0) this.#sessions.delete(jid);
    return true;
  }

  /** A new session hears of everybody anew. */
  forgetPresence() {
    this.#sessions.clear();
    this.#last.clear();
    this.#gathering = [];
  }
}

function isNewer(a, b) {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.sequence > b.sequence);
}
