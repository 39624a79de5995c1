// A client of fanal for web pages: `fanal.json.v1` over WebSocket (schemas/JSON.md), without a framework.
//
//   const fanal = new Fanal('wss://example.org/ws', { jid: 'alice@example.org', password: '...' });
//   fanal.addEventListener('presence', ({ detail }) => console.log(detail.jid, detail.presence.show));
//   await fanal.connect();
//   await fanal.setPresence({ show: 'away', status: 'back at three' });
//
// It connects again by itself (after a pause drawn by lot, longer each time), resumes its session, sends again what was not
// answered, and follows the server to another address. So an update may come late, but the newest one of everybody comes.
//
// Events: `state` (detail: 'connecting', 'online', 'offline', 'ended'), `presence`, `contacts`, `subscription`, `directed`,
// `message`, `token` (what `remember` asks for), `ended` (detail: the Refusal, or null after `close` and `forget`).

import { Scram } from './scram.js';
import { Contacts } from './contacts.js';
import { Showing } from './token.js';

const PROTOCOL = 'fanal.json.v1';
/** Milliseconds: the first pause is up to this long, each next one up to twice as long as the one before. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;
/** Milliseconds of silence after which the server is asked whether it's there, and again until it's given up. */
const SILENCE = 45_000;
/** Milliseconds that connecting and logging in may take. */
const PATIENCE = 15_000;
/** Reasons to close after which connecting again is of use. */
const PASSING = new Set(['log_in_too_slow', 'never_reads', 'too_many_connections', 'shutting_down', 'silent', 'connection_lost']);
/** Reasons for which a log-in may be tried again later. */
const BUSY = new Set(['overloaded', 'storage_failed', 'too_many_pending', 'session_worn_out']);

/** Reasons for which a token is of no use any more. */
const VOID = new Set(['log_in_failed', 'token_expired']);

/** Requests of which only the newest is of interest, whatever became of those before. */
const NEWEST = new Set(['set_presence', 'roster_get']);

/** What the server refused, and why: `name` and `text` as in schemas/README.md. */
export class Refusal extends Error {
  constructor({ reason = 0, name = 'connection_lost', text = 'the connection broke' }) {
    super(text);
    Object.assign(this, { reason, name });
  }
}

export class Fanal extends EventTarget {
  #address;
  #account;
  #socket = null;
  #state = 'offline';
  #session = null;
  #presence = null;
  #kept = null;
  #received = 0;
  #pending = new Map();
  #lastId = 0;
  #attempts = 0;
  #timers = new Set();
  #heard = 0;
  #entered = null;
  #forgets = null;

  /**
   * `address`: where to connect first. `account`: `jid`, and `password` or `token` (or a function that gives a fresh one, perhaps
   * later); `resource`, unless one drawn by lot will do; `presence`, the first one (`null`: none). With `remember: true`, `token`
   * events bring what lets this page in again without all that, if the server gives it: keep the newest detail, as safe as a
   * password, and pass it as `remember` next time. A detail of `null`: the one before is of no use any more.
   */
  constructor(address, { jid, password, token, resource = `web-${randomHex(4)}`, presence = {}, remember = null }) {
    super();
    this.#address = { home: address, now: address };
    this.#account = { jid, password, token, resource };
    this.#presence = presence;
    this.#kept = remember === true ? { client: randomHex(8) } : remember;
    /** Everybody in the roster, and who is there: see contacts.js. */
    this.contacts = new Contacts();
  }

  get state() {
    return this.#state;
  }

  /** Our full JID, once logged in. */
  get jid() {
    return this.#session?.jid ?? null;
  }

  /** Connects and logs in. Fails when the server refuses the log-in for good; otherwise goes on until it has succeeded. */
  connect() {
    this.#entered ??= later();
    if (!this.#socket) this.#open();
    return this.#entered.promise;
  }

  setPresence(presence) {
    this.#presence = presence;
    return this.request('set_presence', { presence });
  }

  subscribe(jid, note) {
    return this.request('subscription', { action: 'subscribe', jid, note });
  }

  /** Lets somebody see our presence, now or once they ask. */
  approve(jid) {
    return this.request('subscription', { action: 'subscribed', jid });
  }

  send(to, body, members = {}) {
    return this.request('message', { to, body, kind: 'chat', message_id: randomHex(8), ...members });
  }

  /** Any request of schemas/JSON.md. It's sent once we're logged in, and again after a connection broke before its answer. */
  request(type, members = {}) {
    if (this.#state === 'ended') return Promise.reject(new Refusal({ name: 'logged_out', text: 'this client was closed' }));
    const request = { ...later(), message: { type, id: ++this.#lastId, ...members } };
    if (NEWEST.has(type)) this.#supersede(request);
    this.#pending.set(request.message.id, request);
    if (this.#state === 'online') this.#say(request.message);
    return request.promise;
  }

  /** Logs out, and stays away. `status`: the last that others hear. */
  async close(status = '') {
    if (this.#state === 'online') await this.request('log_out', { status }).catch(() => {});
    this.#end(null);
  }

  /** Logs out for good: as `close`, and what `remember` brought is of no use any more, whoever has a copy of it. */
  async forget(status = '') {
    if (!this.#kept?.text) return this.close(status);
    if (this.#state === 'online') await this.request('log_out', { status }).catch(() => {});
    if (this.#state === 'ended') return undefined;
    // Tokens are voided with a log-in by one of them, which needs no session.
    this.#forgets ??= later();
    this.#session = null;
    this.#drop();
    this.#open();
    return this.#forgets.promise;
  }

  #supersede(request) {
    for (const [id, older] of this.#pending) {
      if (older.message.type === request.message.type) {
        this.#pending.delete(id);
        request.promise.then(older.resolve, older.reject);
      }
    }
  }

  #open() {
    this.#to('connecting');
    const socket = new WebSocket(this.#address.now, PROTOCOL);
    this.#socket = socket;
    this.#heard = Date.now();
    const talk = { mechanisms: [], scram: null, showing: null, refusal: null };
    socket.onmessage = ({ data }) => {
      this.#heard = Date.now();
      if (socket === this.#socket) this.#hear(JSON.parse(data), talk);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#lost(talk.refusal);
    };
    this.#after(PATIENCE, () => {
      if (socket === this.#socket && this.#state === 'connecting') this.#lost(null);
    });
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #hear(message, talk) {
    switch (message.type) {
      case 'hello': return this.#greet(message, talk);
      case 'sasl_challenge': return this.#respond(message, talk);
      case 'authenticated': return this.#bind(message, talk);
      case 'logged_in': return this.#enter(message, talk);
      case 'error': return this.#refused(message, talk);
      case 'event': return this.contacts.event(message) && this.#tell('presence', message);
      case 'message': return this.#message(message);
      case 'roster': {
        if (this.contacts.roster(message)) this.#tell('contacts', this.contacts);
        return this.#answered(message, message.more);
      }
      case 'roster_push': {
        this.contacts.push(message.item);
        return this.#tell('contacts', this.contacts);
      }
      case 'subscription_event': return this.#tell('subscription', message);
      case 'directed_presence': return this.#tell('directed', message);
      case 'transfer': return this.#follow(message.address);
      default: return this.#answered(message, false);
    }
  }

  #greet({ mechanisms }, talk) {
    talk.mechanisms = mechanisms;
    if (this.#forgets && !this.#canShow(talk)) return this.#end(null);
    if (!this.#session) return this.#logIn(talk);
    const { jid, resume } = this.#session;
    this.#say({ type: 'resume', jid: bare(jid), token: resume, received: this.#received });
  }

  async #logIn(talk) {
    const socket = this.#socket;
    try {
      const proof = await this.#proof(talk);
      // Who wants to be remembered says where it is in a second step.
      const rest = this.#kept ? { bind_later: true, client: this.#kept.client } : this.#place();
      if (socket === this.#socket) this.#say({ type: 'log_in', jid: this.#account.jid, ...rest, ...proof });
    } catch (error) {
      if (socket === this.#socket) this.#end(error);
    }
  }

  /** How we prove who we are: by the token that was kept, or by what the page knows. */
  async #proof(talk) {
    const { jid, password, token } = this.#account;
    if (this.#canShow(talk)) {
      this.#keep({ ...this.#kept, count: this.#kept.count + 1 });
      talk.showing = new Showing(jid, this.#kept.text);
      const shown = { mechanism: Showing.mechanism, token_count: this.#kept.count, data: await talk.showing.first() };
      return this.#forgets ? { ...shown, token_invalid: true } : shown;
    }
    const wish = this.#kept && this.#hasTokens(talk) ? { token_for: Showing.mechanism } : {};
    if (token !== undefined) {
      return { ...wish, mechanism: 'TOKEN', data: base64(await (typeof token === 'function' ? token() : token)) };
    }
    if (password === undefined) {
      const text = 'there is no token that is still good: log in with the password';
      throw talk.refusal ?? new Refusal({ name: 'log_in_failed', text });
    }
    if (Scram.isPossible && talk.mechanisms.includes(Scram.mechanism)) {
      talk.scram = new Scram(jid, password);
      return { ...wish, mechanism: Scram.mechanism, data: base64(talk.scram.first) };
    }
    if (!talk.mechanisms.includes('PLAIN')) {
      throw new Refusal({ name: 'no_mechanism', text: 'the server has no way to log in that this page has' });
    }
    return { ...wish, mechanism: 'PLAIN', data: base64(`\0${jid}\0${password}`) };
  }

  #hasTokens(talk) {
    return Showing.isPossible && talk.mechanisms.includes(Showing.mechanism);
  }

  #canShow(talk) {
    return this.#hasTokens(talk) && this.#kept?.until > Date.now();
  }

  #place() {
    return { resource: this.#account.resource, presence: this.#presence ?? undefined };
  }

  #keep(kept) {
    this.#kept = kept;
    this.#tell('token', kept.text ? kept : null);
  }

  async #respond({ data }, talk) {
    const socket = this.#socket;
    try {
      const response = await talk.scram.respond(unbase64(data));
      if (socket === this.#socket) this.#say({ type: 'sasl_response', data: base64(response) });
    } catch (error) {
      this.#end(error);
    }
  }

  #bind({ data, hashed_token: text, token_until: until }, talk) {
    if (!this.#isProven(data, talk)) return;
    if (this.#forgets) {
      this.#keep({ client: this.#kept.client });
      return this.#end(null);
    }
    if (text) this.#keep({ client: this.#kept.client, text, until, count: 0 });
    this.#say({ type: 'bind', ...this.#place() });
  }

  /** Whether the server knows the account too; if not, all ends. */
  #isProven(data, talk) {
    const exchange = talk.showing ?? talk.scram;
    [talk.showing, talk.scram] = [null, null];
    const isProven = !exchange || exchange.proves(data);
    if (!isProven) {
      this.#end(new Refusal({ name: 'log_in_failed', text: 'the server does not know this account: it is not who it says' }));
    }
    return isProven;
  }

  #enter(session, talk) {
    if (!this.#isProven(session.data, talk)) return;
    this.#attempts = 0;
    this.#session = session;
    if (!session.resumed) {
      this.#received = 0;
      this.contacts.forgetPresence();
      this.request('roster_get').catch(() => {});
    }
    this.#to('online');
    for (const { message } of this.#pending.values()) this.#say(message);
    this.#watch(this.#socket);
    this.#entered.resolve(session);
  }

  /** Closes a connection on which nothing comes any more, as browsers don't. */
  #watch(socket) {
    this.#after(SILENCE / 3, () => {
      if (socket !== this.#socket) return;
      const silent = Date.now() - this.#heard;
      if (silent > 2 * SILENCE) return this.#lost(null);
      if (silent > SILENCE) this.#say({ type: 'ping', id: ++this.#lastId });
      this.#watch(socket);
    });
  }

  #message(message) {
    const isNew = message.number > this.#received;
    this.#received = Math.max(message.number, this.#received);
    this.#say({ type: 'ack', received: this.#received });
    if (isNew) this.#tell('message', message);
  }

  #answered(message, more) {
    const request = this.#pending.get(message.id);
    if (!request || more) return;
    this.#pending.delete(message.id);
    request.resolve(message);
  }

  #refused(error, talk) {
    const refusal = new Refusal(error);
    const request = this.#pending.get(error.id);
    if (request) {
      this.#pending.delete(error.id);
      return request.reject(refusal);
    }
    talk.refusal = refusal;
    if (error.reason >= 100) return;
    if (error.name === 'resume_failed' || error.name === 'session_worn_out') {
      this.#session = null;
      return this.#lost(null);
    }
    if (BUSY.has(error.name)) return this.#lost(null);
    if (talk.showing && VOID.has(error.name)) {
      talk.showing = null;
      this.#keep({ client: this.#kept.client });
      return this.#forgets ? this.#end(null) : this.#logIn(talk);
    }
    // A request without an answer wanted may fail and nothing ends; everything else without a number ends the session.
    if (this.#state === 'connecting' || ['replaced', 'account_removed', 'logged_out'].includes(error.name)) this.#end(refusal);
  }

  /** Goes on at another address: the session is resumed there, so nothing is lost that this connection still had to say. */
  #follow(address) {
    const scheme = new URL(this.#address.now).protocol;
    this.#address.now = address.includes('://') ? address : `${scheme}//${address}/ws`;
    this.#drop();
    this.#open();
  }

  /** The connection is gone: connect again after a pause, unless that is of no use. */
  #lost(refusal) {
    this.#drop();
    if (refusal && refusal.reason >= 100 && !PASSING.has(refusal.name)) return this.#end(refusal);
    this.#to('offline');
    // Wherever we were sent to may be gone for good: from the second attempt on, home.
    if (this.#attempts > 0) this.#address.now = this.#address.home;
    const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#attempts);
    this.#attempts += 1;
    this.#after(Math.random() * longest, () => this.#open());
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    socket?.close();
  }

  #end(refusal) {
    this.#drop();
    this.#to('ended');
    this.#entered?.promise.catch(() => {});
    const why = refusal ?? new Refusal({ name: 'logged_out', text: 'this client was closed' });
    this.#entered?.reject(why);
    for (const request of this.#pending.values()) request.reject(why);
    this.#pending.clear();
    if (refusal) this.#forgets?.reject(refusal);
    else this.#forgets?.resolve();
    this.#tell('ended', refusal);
  }

  #after(milliseconds, work) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, milliseconds);
    this.#timers.add(timer);
  }

  #to(state) {
    if (state === this.#state || this.#state === 'ended') return;
    this.#state = state;
    this.#tell('state', state);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** A promise, with what settles it. */
function later() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

function bare(jid) {
  return jid.split('/', 1)[0];
}

function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

function unbase64(text) {
  return new TextDecoder().decode(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
}
