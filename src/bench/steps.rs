//! The steps that get a benchmark's users to where they are measured: so many requests at a time, until all are answered.
//!
//! Lives on: the generator's pinned thread. Serves G6. Invariant: when a step returns, all it asked for has come; a refusal ended
//! the benchmark with the server's own words, and so did a server that said nothing for `PATIENCE`.

use super::progress::Progress;
use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

/// Requests of one user that are under way at once.
const UNDER_WAY_PER_USER: u64 = 64;
/// How long a step waits for the next answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server has said to the requests of its users.
pub struct Tally {
    users: u32,
    /// Requests of all users that are under way at once.
    most: u64,
    /// Of the step under way.
    pub answers: u64,
    /// Available presences of contacts that came so far.
    pub seen: u64,
    failure: Option<String>,
}

impl Tally {
    /// Nothing yet. No more than `under_way` requests are to be unanswered at once, over all users.
    pub fn new(users: u32, under_way: u64) -> Tally {
        let most = under_way.min(UNDER_WAY_PER_USER * u64::from(users));
        Tally { users, most, answers: 0, seen: 0, failure: None }
    }

    /// The server has refused something, in these words.
    pub fn refuse(&mut self, words: impl Display) {
        self.fail(format!("the server refused: {words}"));
    }

    /// The benchmark can't go on: the first reason counts.
    pub fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }
}

/// What a step waits for, and how many of it over all users.
pub enum Until {
    /// Answers to its own requests.
    Answered(u64),
    /// Available presences of contacts, those of earlier steps among them.
    Seen(u64),
}

/// Users who ask a server for something, each for the same.
pub trait Steps: Sized {
    fn tally(&mut self) -> &mut Tally;

    /// Waits so long for something, and sorts it into the tally. Gives the number of connections that had something.
    ///
    /// # Errors
    /// A connection broke.
    fn listen(&mut self, patience: Duration) -> io::Result<usize>;

    /// One request of each user.
    ///
    /// # Errors
    /// As below.
    fn step_of_all(
        &mut self,
        what: &'static str,
        progress: &Progress,
        mut ask: impl FnMut(&mut Self, u32) -> io::Result<()>,
    ) -> io::Result<()> {
        let users = self.tally().users;
        self.step(what, Until::Answered(users.into()), progress, |all, user| ask(all, user as u32))
    }

    /// As many requests as there is to wait for; `ask` makes the nth.
    ///
    /// # Errors
    /// What failed, in the server's words where it had some.
    fn step(
        &mut self,
        what: &'static str,
        until: Until,
        progress: &Progress,
        mut ask: impl FnMut(&mut Self, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let (Until::Answered(count) | Until::Seen(count)) = until;
        progress.begin(what, count);
        self.tally().answers = 0;
        let (mut asked, mut heard_at) = (0, Instant::now());
        loop {
            let Tally { most, answers, seen, .. } = *self.tally();
            let come = if matches!(until, Until::Seen(_)) { seen } else { answers };
            progress.at(come);
            if come >= count {
                return Ok(());
            }
            while asked < count.min(come + most) {
                ask(self, asked)?;
                asked += 1;
            }
            let heard = self.listen(PATIENCE);
            // What the server said before it closed is a better answer than a broken connection.
            if let Some(failure) = self.tally().failure.take() {
                return Err(io::Error::other(failure));
            }
            if heard? > 0 {
                heard_at = Instant::now();
            } else if heard_at.elapsed() >= PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(io::Error::other(format!("{what}: {come} of {count}, and the server says nothing for {seconds} s")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers a few requests whenever it is listened to, and refuses one.
    struct Fake {
        tally: Tally,
        asked: Vec<u64>,
        refused: Option<u64>,
        most: u64,
    }

    impl Fake {
        fn new(users: u32, refused: Option<u64>) -> Fake {
            Fake { tally: Tally::new(users, 10), asked: Vec::new(), refused, most: 0 }
        }

        fn take(&mut self, count: u64) -> io::Result<()> {
            self.step("requests", Until::Answered(count), &Progress::shown(false), |fake, number| {
                fake.asked.push(number);
                fake.most = fake.most.max(fake.asked.len() as u64 - fake.tally.answers);
                Ok(())
            })
        }
    }

    impl Steps for Fake {
        fn tally(&mut self) -> &mut Tally {
            &mut self.tally
        }

        fn listen(&mut self, _: Duration) -> io::Result<usize> {
            if self.refused.is_some_and(|refused| self.asked.contains(&refused)) {
                self.tally.refuse("not you");
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.tally.answers += 3.min(self.asked.len() as u64 - self.tally.answers);
            Ok(1)
        }
    }

    #[test]
    fn everything_is_asked_once_and_so_much_at_a_time() {
        let mut fake = Fake::new(5, None);
        fake.take(100).unwrap();
        assert_eq!((fake.asked, fake.tally.answers, fake.most), ((0..100).collect(), 100, 10));
        fake = Fake::new(5, None);
        fake.take(4).unwrap();
        assert_eq!((fake.asked.len(), fake.most), (4, 4));
        assert_eq!(Tally::new(2, 1000).most, 2 * UNDER_WAY_PER_USER, "nobody asks for too much alone");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words_though_the_connection_broke() {
        let told = Fake::new(5, Some(42)).take(100).unwrap_err().to_string();
        assert_eq!(told, "the server refused: not you");
    }
}
