// The demonstration: two users on one page, each with a contact list that is always up to date.

import { Fanal } from '/fanal/fanal.js';

const ADDRESS = `${location.protocol.replace('http', 'ws')}//${location.host}/ws`;

/** One user's part of the page. */
class User {
  #fanal = null;

  constructor(part) {
    this.part = part;
    this.on('.log-in', ({ jid, password }) => this.logIn({ jid, password, remember: true }));
    this.on('.presence', ({ show, status }) => this.#fanal.setPresence({ show, status }));
    this.on('.add', async ({ jid }, form) => {
      // They may see us too: a contact list is mutual for most people.
      await Promise.all([this.#fanal.subscribe(jid), this.#fanal.approve(jid)]);
      form.reset();
    });
    this.find('.log-out').onclick = () => {
      sessionStorage.removeItem(this.part.id);
      this.#fanal.forget().catch((error) => this.say(error.message));
    };
  }

  find(selector) {
    return this.part.querySelector(selector);
  }

  /** What a form holds goes to `work`; what fails is said. */
  on(selector, work) {
    this.find(selector).onsubmit = async (event) => {
      event.preventDefault();
      try {
        await work(Object.fromEntries(new FormData(event.target)), event.target);
      } catch (error) {
        this.say(error.message);
      }
    };
  }

  say(text) {
    this.find('.state').textContent = text;
  }

  /** Logs in again as the user who was here when the page was loaded last. */
  async comeBack() {
    const { jid, remember } = JSON.parse(sessionStorage.getItem(this.part.id)) ?? {};
    if (remember) await this.logIn({ jid, remember }).catch((error) => this.say(error.message));
  }

  keep(jid, remember) {
    sessionStorage.setItem(this.part.id, JSON.stringify({ jid, remember }));
  }

  async logIn(account) {
    const fanal = new Fanal(ADDRESS, account);
    this.#fanal = fanal;
    const show = () => this.show();
    fanal.addEventListener('state', ({ detail }) => this.say(detail));
    fanal.addEventListener('token', ({ detail }) => this.keep(account.jid, detail));
    fanal.addEventListener('contacts', show);
    fanal.addEventListener('presence', show);
    fanal.addEventListener('subscription', ({ detail }) => this.asked(detail));
    fanal.addEventListener('ended', ({ detail }) => this.ended(detail));
    await fanal.connect();
    this.find('.jid').textContent = fanal.jid;
    this.in(true);
  }

  in(isIn) {
    this.find('.log-in').hidden = isIn;
    this.find('.session').hidden = !isIn;
  }

  ended(refusal) {
    this.in(false);
    this.find('.contacts').replaceChildren();
    this.find('.requests').replaceChildren();
    this.say(refusal?.message ?? 'offline');
  }

  show() {
    this.find('.contacts').replaceChildren(...this.#fanal.contacts.list().map(({ jid, name, presence, subscription, ask }) => {
      const item = entry(name ?? jid, presence.status ?? (ask ? 'has not answered yet' : ''));
      Object.assign(item.dataset, { jid, show: presence.show, subscription });
      return item;
    }));
  }

  asked({ action, jid, note }) {
    if (action !== 'subscribe') return;
    const item = entry(jid, note ?? 'wants to see who you are');
    const button = document.createElement('button');
    button.textContent = 'Approve';
    button.onclick = async () => {
      await Promise.all([this.#fanal.approve(jid), this.#fanal.subscribe(jid)]);
      item.remove();
    };
    item.append(button);
    this.find('.requests').append(item);
  }
}

function entry(name, words) {
  const item = document.createElement('li');
  const said = document.createElement('span');
  said.className = 'words';
  said.textContent = words;
  item.append(name, said);
  return item;
}

const template = document.getElementById('user');
for (const place of ['first', 'second']) {
  const part = template.content.firstElementChild.cloneNode(true);
  part.id = place;
  document.getElementById('users').append(part);
  new User(part).comeBack();
}
