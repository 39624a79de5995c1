//! Hashed tokens: what lets a client in again without its password, and without being sent (XEP-0484, with the mechanisms of
//! draft-schmaus-kitten-sasl-ht).
//!
//! Lives on: the user's home core. Pure. A token is the HMAC, with the deployment's own secret, of its user, client, mechanism and
//! time of issue, and of what is kept in place of the user's password. So nothing secret is stored; of each client, the two times
//! at which tokens were issued that are still good. Invariants: another password voids all tokens; a token is good for its client
//! and its mechanism only; once a newer one was used, or a new one given out, older ones that nobody used are void; at most
//! [`CLIENTS`] clients of a user have tokens.

use super::credentials::Hash;
use super::jid::Bare;
use super::time::WallClock;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// Clients of one user that have tokens. At the limit: the one that was given its token first loses it.
pub const CLIENTS: usize = 16;
/// Longest name that a client may have, in bytes. At the limit: it gets no token.
pub const CLIENT_BYTES: usize = 256;

/// The deployment's secret, of which all tokens are made.
#[derive(Clone)]
pub struct TokenSecret([u8; 32]);

/// Whose tokens they are.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub jid: &'a Bare,
    /// What is kept in place of the password: tokens end with it. Empty: the user has none.
    pub mark: &'a [u8],
}

/// What a client shows, and for how long its tokens are good.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// What the client calls itself.
    pub client: &'a str,
    /// What the token is bound to: the connection's tls-exporter. `None`: nothing.
    pub channel: Option<[u8; 32]>,
    /// How often the client has shown the token; 0: it does not count.
    pub count: u32,
    pub proof: &'a [u8],
    pub now: WallClock,
    pub life_ms: u64,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    Good {
        /// By which the server proves that it has the token, too.
        answer: Vec<u8>,
        /// More than half of the token's life is over.
        due: bool,
    },
    /// It was good once.
    Expired,
    Wrong,
}

/// A token, and when it ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    pub text: String,
    pub until: WallClock,
}

/// A client of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Client {
    /// The hash of its name.
    name: [u8; 16],
    /// Whether its tokens are bound to connections.
    bound: bool,
    /// When the token was issued that it used last; 0: none.
    used: u64,
    /// When one was issued that it has not used yet; 0: none.
    newest: u64,
    /// How often the used one was shown, as the client counts.
    count: u32,
}

/// The clients of one user that have tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Clients(Vec<Client>);

impl TokenSecret {
    /// `base` is a secret of the deployment; what is made of it is of use for nothing else.
    pub fn new(base: &[u8; 32]) -> TokenSecret {
        TokenSecret(Hash::Sha256.hmac(base, &[b"hashed tokens"]).try_into().expect("SHA-256 gives 32 bytes"))
    }

    fn token(&self, owner: Owner<'_>, client: &Client, issued: u64) -> String {
        let (length, jid) = ((owner.mark.len() as u64).to_le_bytes(), owner.jid.as_str().as_bytes());
        let (bound, issued) = ([u8::from(client.bound)], issued.to_le_bytes());
        let parts: [&[u8]; 6] = [&client.name, &bound, &issued, &length, owner.mark, jid];
        BASE64_URL_SAFE_NO_PAD.encode(Hash::Sha256.hmac(&self.0, &parts))
    }
}

impl Clients {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain values, and memory takes them all")
    }

    /// `None`: they can't be read.
    pub fn decode(bytes: &[u8]) -> Option<Clients> {
        postcard::from_bytes(bytes).ok().filter(|clients: &Clients| clients.0.len() <= CLIENTS)
    }

    /// Gives a client a new token; the one it uses stays good until it shows the new one.
    pub fn issue(
        &mut self,
        secret: &TokenSecret,
        owner: Owner<'_>,
        client: &str,
        bound: bool,
        now: WallClock,
        life_ms: u64,
    ) -> Token {
        let name = name(client);
        let known = self.0.iter().position(|client| client.name == name);
        let at = known.unwrap_or_else(|| {
            if self.0.len() >= CLIENTS {
                let oldest = (0..self.0.len()).min_by_key(|&at| self.0[at].used.max(self.0[at].newest));
                self.0.swap_remove(oldest.expect("the list is full"));
            }
            self.0.push(Client { name, bound, used: 0, newest: 0, count: 0 });
            self.0.len() - 1
        });
        let client = &mut self.0[at];
        if client.bound != bound {
            (client.bound, client.used) = (bound, 0);
        }
        client.newest = now.0.max(client.used.max(client.newest) + 1);
        Token { text: secret.token(owner, client, client.newest), until: WallClock(client.newest.saturating_add(life_ms)) }
    }

    /// Checks what a client shows, and takes note of it.
    pub fn check(&mut self, secret: &TokenSecret, owner: Owner<'_>, shown: &Shown<'_>) -> Outcome {
        let (name, bound) = (name(shown.client), shown.channel.is_some());
        let channel = shown.channel.as_ref().map_or(&[][..], |channel| &channel[..]);
        let Some(client) = self.0.iter_mut().find(|client| client.name == name && client.bound == bound) else {
            return Outcome::Wrong;
        };
        let fits =
            |token: &str| -> bool { Hash::Sha256.hmac(token.as_bytes(), &[b"Initiator", channel]).ct_eq(shown.proof).into() };
        for issued in [client.newest, client.used].into_iter().filter(|&issued| issued != 0) {
            let token = secret.token(owner, client, issued);
            if !fits(&token) {
                continue;
            }
            if issued == client.newest {
                (client.used, client.newest, client.count) = (issued, 0, 0);
            }
            // Whoever has counted once goes on: somebody else may have heard what it showed.
            if client.count > 0 && shown.count <= client.count {
                return Outcome::Wrong;
            }
            let age = shown.now.0.saturating_sub(issued);
            if age >= shown.life_ms {
                return Outcome::Expired;
            }
            client.count = shown.count;
            let answer = Hash::Sha256.hmac(token.as_bytes(), &[b"Responder", channel]);
            return Outcome::Good { answer, due: age >= shown.life_ms / 2 };
        }
        Outcome::Wrong
    }

    /// None of a client's tokens is good any more.
    pub fn forget(&mut self, client: &str) {
        let name = name(client);
        self.0.retain(|client| client.name != name);
    }
}

fn name(client: &str) -> [u8; 16] {
    *Hash::Sha256.digest(client.as_bytes()).first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: u64 = 1_000;

    struct World {
        secret: TokenSecret,
        jid: Bare,
        mark: Vec<u8>,
        clients: Clients,
    }

    impl World {
        fn new() -> World {
            let (secret, jid) = (TokenSecret::new(&[7; 32]), Bare::new("a@b").unwrap());
            World { secret, jid, mark: b"key".into(), clients: Clients::default() }
        }

        fn issue(&mut self, client: &str, bound: bool, now: u64) -> String {
            let owner = Owner { jid: &self.jid, mark: &self.mark };
            self.clients.issue(&self.secret, owner, client, bound, WallClock(now), LIFE).text
        }

        fn show(&mut self, client: &str, token: &str, channel: Option<[u8; 32]>, count: u32, now: u64) -> Outcome {
            let owner = Owner { jid: &self.jid, mark: &self.mark };
            let data = channel.as_ref().map_or(&[][..], |channel| &channel[..]);
            let proof = Hash::Sha256.hmac(token.as_bytes(), &[b"Initiator", data]);
            let shown = Shown { client, channel, count, proof: &proof, now: WallClock(now), life_ms: LIFE };
            self.clients.check(&self.secret, owner, &shown)
        }

        fn is_good(&mut self, client: &str, token: &str, now: u64) -> bool {
            matches!(self.show(client, token, None, 0, now), Outcome::Good { .. })
        }
    }

    #[test]
    fn xep_0484_a_token_is_good_for_its_client_its_mechanism_and_its_password_until_it_ends() {
        let mut world = World::new();
        let token = world.issue("one", false, 100);
        let answer = Hash::Sha256.hmac(token.as_bytes(), &[b"Responder"]);
        assert_eq!(world.show("one", &token, None, 0, 101), Outcome::Good { answer: answer.clone(), due: false });
        assert_eq!(world.show("one", &token, None, 0, 600), Outcome::Good { answer, due: true });
        assert_eq!(world.show("one", &token, None, 0, 1100), Outcome::Expired);
        assert_eq!(world.show("two", &token, None, 0, 101), Outcome::Wrong);
        assert_eq!(world.show("one", &token, Some([9; 32]), 0, 101), Outcome::Wrong);
        assert_eq!(world.show("one", "another", None, 0, 101), Outcome::Wrong);
        world.mark = b"another".into();
        assert_eq!(world.show("one", &token, None, 0, 101), Outcome::Wrong);
    }

    #[test]
    fn xep_0484_a_bound_token_is_of_no_use_on_another_connection_or_without_one() {
        let mut world = World::new();
        let token = world.issue("one", true, 100);
        assert!(matches!(world.show("one", &token, Some([9; 32]), 0, 101), Outcome::Good { .. }));
        assert_eq!(world.show("one", &token, None, 0, 101), Outcome::Wrong);
        let owner = Owner { jid: &world.jid, mark: &world.mark };
        let proof = Hash::Sha256.hmac(token.as_bytes(), &[b"Initiator", &[8; 32]]);
        let (now, channel) = (WallClock(101), Some([9; 32]));
        let shown = Shown { client: "one", channel, count: 0, proof: &proof, now, life_ms: LIFE };
        assert_eq!(world.clients.check(&world.secret, owner, &shown), Outcome::Wrong);
    }

    #[test]
    fn xep_0484_a_new_token_voids_the_old_one_when_it_is_used_and_one_that_nobody_used_at_once() {
        let mut world = World::new();
        let first = world.issue("one", false, 100);
        assert!(world.is_good("one", &first, 101));
        let (lost, second) = (world.issue("one", false, 102), world.issue("one", false, 102));
        assert!(!world.is_good("one", &lost, 103) && world.is_good("one", &first, 103) && world.is_good("one", &second, 104));
        assert!(!world.is_good("one", &first, 105) && world.is_good("one", &second, 105));
        let other = world.issue("two", false, 106);
        world.clients.forget("one");
        assert!(!world.is_good("one", &second, 107) && world.is_good("two", &other, 107));
    }

    #[test]
    fn xep_0484_who_counts_can_not_be_replayed() {
        let mut world = World::new();
        let token = world.issue("one", false, 100);
        let mut good = |count| matches!(world.show("one", &token, None, count, 101), Outcome::Good { .. });
        assert_eq!([0, 0, 3, 3, 2, 0, 4].map(&mut good), [true, true, true, false, false, false, true]);
        let next = world.issue("one", false, 102);
        assert!(matches!(world.show("one", &next, None, 1, 103), Outcome::Good { .. }), "another token, counted anew");
    }

    #[test]
    fn xep_0484_a_user_has_so_many_clients_and_the_oldest_goes() {
        let mut world = World::new();
        let tokens: Vec<String> = (0..=CLIENTS).map(|n| world.issue(&n.to_string(), false, 100 + n as u64)).collect();
        assert_eq!(world.clients.0.len(), CLIENTS);
        assert!(!world.is_good("0", &tokens[0], 200) && world.is_good("1", &tokens[1], 200));
        assert_eq!(Clients::decode(&world.clients.encode()), Some(world.clients.clone()));
        assert!(world.clients.encode().len() < 1024);
        world.clients.0.push(world.clients.0[0].clone());
        assert_eq!(Clients::decode(&world.clients.encode()), None);
    }
}
