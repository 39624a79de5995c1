// SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding: the password is proved, not sent, and the server proves itself too.

const encoder = new TextEncoder();
/** What a server may ask of us, so that none keeps a page busy for minutes. */
const MOST_ITERATIONS = 1_000_000;

export class Scram {
  static mechanism = 'SCRAM-SHA-256';
  /** Browsers have what it needs only on pages that came over a safe way. */
  static isPossible = globalThis.crypto?.subtle !== undefined;

  #password;
  #nonce = toBase64(crypto.getRandomValues(new Uint8Array(18)));
  #bare;
  #signature = null;

  constructor(jid, password) {
    this.#password = password.normalize('NFKC');
    this.#bare = `n=${jid.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${this.#nonce}`;
  }

  /** The first message. */
  get first() {
    return `n,,${this.#bare}`;
  }

  /** The answer to the server's first message. */
  async respond(challenge) {
    const said = Object.fromEntries(challenge.split(',').map((part) => [part[0], part.slice(2)]));
    const iterations = Number(said.i);
    if (!said.r?.startsWith(this.#nonce) || !said.s || !(iterations >= 1 && iterations <= MOST_ITERATIONS)) {
      throw new Error('the server does not speak SCRAM as it should');
    }
    const salted = await this.#salt(fromBase64(said.s), iterations);
    const clientKey = await hmac(salted, 'Client Key');
    const storedKey = new Uint8Array(await crypto.subtle.digest('SHA-256', clientKey));
    const withoutProof = `c=biws,r=${said.r}`;
    const all = `${this.#bare},${challenge},${withoutProof}`;
    const clientSignature = await hmac(storedKey, all);
    this.#signature = toBase64(await hmac(await hmac(salted, 'Server Key'), all));
    return `${withoutProof},p=${toBase64(clientKey.map((byte, at) => byte ^ clientSignature[at]))}`;
  }

  /** Whether the server's last message, in base64, shows that it knows the account. */
  proves(final) {
    return this.#signature !== null && final === btoa(`v=${this.#signature}`);
  }

  async #salt(salt, iterations) {
    const key = await crypto.subtle.importKey('raw', encoder.encode(this.#password), 'PBKDF2', false, ['deriveBits']);
    return new Uint8Array(await crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-256', salt, iterations }, key, 256));
  }
}

export async function hmac(key, text) {
  const imported = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign('HMAC', imported, encoder.encode(text)));
}

export function toBase64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
