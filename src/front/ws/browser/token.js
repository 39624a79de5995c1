// Hashed tokens (XEP-0484): what lets a page in again without the password. A token is shown, and never sent.

import { Scram, hmac, toBase64 } from './scram.js';

const encoder = new TextEncoder();

export class Showing {
  /** A page can't tell what its connection could be bound to. */
  static mechanism = 'HT-SHA-256-NONE';
  static isPossible = Scram.isPossible;

  #jid;
  #key;
  #answer;

  /** `text` is the token. */
  constructor(jid, text) {
    this.#jid = jid;
    this.#key = encoder.encode(text);
  }

  /** The only message, in base64. */
  async first() {
    this.#answer = toBase64(await hmac(this.#key, 'Responder'));
    return toBase64([...encoder.encode(`${this.#jid}\0`), ...await hmac(this.#key, 'Initiator')]);
  }

  /** Whether the server's answer, in base64, shows that it has the token too. */
  proves(answer) {
    return answer === this.#answer;
  }
}
