//! What the storage thread does with the database: connects and connects again, makes transactions, settles those of unknown end.
//!
//! Lives on: the storage thread. Serves J10, M3. The invariants stand in the module above.

mod epoch;

use super::session::{Broken, Fence, Row, Session, judge};
use super::{ALIVE_SECONDS, LATE_BYTES, Rows, Settings, TEND, Trouble, schema};
use crate::base::random::Random;
use crate::store::dir::OpenError;
use crate::store::{Commit, Durability, Failure, Health, Settled, Table};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The first wait before another try; each is twice as long as the one before, up to the longest, and then cut by chance.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a node's row says that it lives.
const SAY_ALIVE: Duration = Duration::from_secs(5);
/// Bits of a version behind the epoch.
const STAMP_BITS: u32 = 40;

/// Rows that may be late, while they wait.
#[derive(Default)]
struct Late {
    rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    bytes: usize,
}

/// Since when the database is away, so that nobody waits for it.
struct Away {
    why: String,
    tries: u32,
    next: Instant,
}

pub(super) struct Work {
    settings: Settings,
    session: Option<Session>,
    epoch: u32,
    /// The last of this epoch's transactions that is surely there.
    number: i64,
    /// The number of the transaction whose end is not known.
    doubt: Option<i64>,
    /// What became of it, until whoever was in doubt has been told: others may have found out.
    settled: Option<Settled>,
    stamp: i64,
    late: Late,
    away: Option<Away>,
    /// Why this process stores nothing any more.
    over: Option<String>,
    said_alive: Instant,
    random: Random,
    pub health: Health,
}

impl Work {
    pub fn new(settings: Settings) -> Work {
        Work {
            random: Random::new(settings.seed),
            settings,
            session: None,
            epoch: 0,
            number: 0,
            doubt: None,
            settled: None,
            stamp: 0,
            late: Late::default(),
            away: None,
            over: None,
            said_alive: Instant::now(),
            health: Health { up: false, ..Health::default() },
        }
    }

    pub fn place(&self) -> String {
        self.settings.target.place.clone()
    }

    /// Half of the patience is for the transaction before.
    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.patience / 2
    }

    fn refusal(&self, why: &str) -> String {
        format!("{}: the change could not be written: {why}. Look after the database", self.settings.target.place)
    }

    fn wait(&mut self, tries: u32) -> Duration {
        let whole = FIRST_WAIT.saturating_mul(1 << tries.min(16)).min(LONGEST_WAIT);
        whole.mul_f64(0.5 + self.random.unit() / 2.0)
    }

    fn lose(&mut self) {
        if self.session.take().is_some() {
            self.health.losses += 1;
        }
        self.health.up = false;
    }

    /// The first connection, and the tables.
    pub async fn open(&mut self) -> Result<(), OpenError> {
        let deadline = Instant::now() + self.settings.patience;
        let mut tries = 0;
        loop {
            let why = match bounded(deadline, Session::open(&self.settings.target)).await {
                Ok(session) => return self.take_on(session).await,
                Err(Trouble::Lost(why)) => why,
                Err(trouble) => return Err(self.cannot_connect(trouble.why())),
            };
            let wait = self.wait(tries);
            tries += 1;
            if Instant::now() + wait >= deadline {
                return Err(self.cannot_connect(&why));
            }
            sleep(wait).await;
        }
    }

    fn cannot_connect(&self, why: &str) -> OpenError {
        OpenError::Database {
            place: self.place(),
            why: format!("can't connect: {why}"),
            fix: "Start the database, or correct store.url; then start this again",
        }
    }

    async fn take_on(&mut self, mut session: Session) -> Result<(), OpenError> {
        let place = self.place();
        schema::prepare(&session.client, &place).await?;
        let bad = |trouble: Trouble| OpenError::Database {
            place,
            why: trouble.why().to_owned(),
            fix: "Grant this role SELECT, INSERT, UPDATE and DELETE on the tables fanal_*",
        };
        session.prepare().await.map_err(bad)?;
        self.session = Some(session);
        self.health.connects += 1;
        self.health.up = true;
        Ok(())
    }

    /// A session on which this node may write, once it's known what became of the transaction in doubt, if there was one.
    async fn ready(&mut self, deadline: Instant) -> Result<(), Trouble> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.lose();
        }
        let is_new = self.session.is_none();
        if is_new {
            let opened = async {
                let mut session = Session::open(&self.settings.target).await?;
                session.prepare().await?;
                Ok(session)
            };
            self.session = Some(bounded(deadline, opened).await?);
            self.health.connects += 1;
        }
        match self.doubt {
            Some(number) => self.settled = Some(self.settle(number, deadline).await?),
            None if is_new && self.epoch > 0 => self.check_place(deadline).await?,
            None => {}
        }
        self.health.up = true;
        self.away = None;
        Ok(())
    }

    /// Runs something on the session; whatever may have left it half way ends it.
    async fn on_session<T>(
        &mut self,
        deadline: Instant,
        run: impl AsyncFnOnce(&Session) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let Some(session) = &self.session else { return Err(Trouble::Lost("there is no connection".into())) };
        let result = bounded(deadline, run(session)).await;
        if let Err(Trouble::Lost(_)) = &result {
            self.lose();
        }
        result
    }

    /// Finds out what became of a transaction. The database answers once it's over there, too.
    async fn settle(&mut self, number: i64, deadline: Instant) -> Result<Settled, Trouble> {
        const SETTLE: &str = "UPDATE fanal_nodes SET number = number + 2, seen = now() \
            WHERE cluster = $1 AND node = $2 AND epoch = $3 RETURNING number";
        let (writer, epoch) = (self.settings.writer, i64::from(self.epoch));
        let ask = async |session: &Session| {
            let row = session.client.query_opt(SETTLE, &[&writer.cluster(), &writer.node(), &epoch]).await;
            row.map(|row| row.map(|row| row.get::<_, i64>(0))).map_err(|error| judge(&error))
        };
        match self.on_session(deadline, ask).await? {
            Some(found) => {
                (self.number, self.doubt) = (found, None);
                self.health.settled += 1;
                Ok(if (found - number) % 2 == 0 { Settled::Made } else { Settled::NotMade })
            }
            None => Err(self.end(REPLACED)),
        }
    }

    /// Whether the node is still the one that the database knows, and nothing is missing that was durable.
    async fn check_place(&mut self, deadline: Instant) -> Result<(), Trouble> {
        const PLACE: &str = "SELECT epoch, number FROM fanal_nodes WHERE cluster = $1 AND node = $2";
        let writer = self.settings.writer;
        let ask = async |session: &Session| {
            let row = session.client.query_opt(PLACE, &[&writer.cluster(), &writer.node()]).await;
            row.map(|row| row.map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1)))).map_err(|error| judge(&error))
        };
        match self.on_session(deadline, ask).await? {
            Some((epoch, _)) if epoch != i64::from(self.epoch) => Err(self.end(REPLACED)),
            Some((_, number)) if number < self.number => Err(self.end(LOST_COMMITS)),
            Some(_) => Ok(()),
            None => Err(self.end(LOST_COMMITS)),
        }
    }

    /// From here on nothing is stored.
    fn end(&mut self, why: &str) -> Trouble {
        if self.over.is_none() {
            tracing::error!("{}: {why}", self.settings.target.place);
        }
        self.over = Some(why.to_owned());
        Trouble::Refused(why.to_owned())
    }

    /// Makes one transaction of the commits and of the rows that are late.
    pub async fn apply(&mut self, commits: &[Commit]) -> Result<u64, Failure> {
        let synced = commits.iter().any(|commit| commit.durability == Durability::Synced);
        let late = std::mem::take(&mut self.late);
        let mut rows: Rows<'_> =
            late.rows.iter().map(|((table, key), value)| ((*table, key.as_slice()), value.as_deref())).collect();
        let writes = commits.iter().flat_map(|commit| &commit.writes);
        rows.extend(writes.map(|write| ((write.table, write.key.as_slice()), write.value.as_deref())));
        let made = self.make(&rows, synced).await;
        drop(rows);
        let failure = match made {
            Ok(nanos) => return Ok(nanos),
            Err(failure) => failure,
        };
        self.late = late;
        self.keep_late(commits, matches!(failure, Failure::InDoubt(_)));
        // Nothing was refused that anybody waits for.
        if synced { Err(failure) } else { Ok(0) }
    }

    /// Keeps what may be late of a transaction that was not made. One in doubt may have changed the other rows since.
    fn keep_late(&mut self, commits: &[Commit], in_doubt: bool) {
        for commit in commits {
            for write in &commit.writes {
                match commit.durability {
                    Durability::RideAlong => {
                        self.health.late_dropped += u64::from(!self.late.put(write.table, &write.key, write.value.as_deref()));
                    }
                    Durability::Synced if in_doubt => self.late.forget(write.table, &write.key),
                    Durability::Synced => {}
                }
            }
        }
    }

    /// Tries until it's there, refused, or too late.
    async fn make(&mut self, rows: &Rows<'_>, synced: bool) -> Result<u64, Failure> {
        let deadline = self.deadline();
        if let Some(away) = &self.away {
            return Err(Failure::Refused(self.refusal(&away.why)));
        }
        let mut tries = 0;
        loop {
            if let Some(why) = &self.over {
                return Err(Failure::Refused(self.refusal(why)));
            }
            let why = match self.attempt(rows, synced, deadline).await {
                Ok(nanos) => return Ok(nanos),
                Err(Trouble::Refused(why)) if self.doubt.is_none() => return Err(Failure::Refused(self.refusal(&why))),
                Err(trouble) => trouble.why().to_owned(),
            };
            self.health.retries += 1;
            let wait = self.wait(tries);
            tries += 1;
            if Instant::now() + wait >= deadline {
                return Err(self.give_up(&why));
            }
            sleep(wait).await;
        }
    }

    fn give_up(&mut self, why: &str) -> Failure {
        if self.session.is_none() {
            let next = Instant::now() + FIRST_WAIT;
            self.away = Some(Away { why: format!("the database is away: {why}"), tries: 0, next });
        }
        let reason = self.refusal(why);
        if self.doubt.is_some() { Failure::InDoubt(reason) } else { Failure::Refused(reason) }
    }

    async fn attempt(&mut self, rows: &Rows<'_>, synced: bool, deadline: Instant) -> Result<u64, Trouble> {
        self.ready(deadline).await?;
        if self.settled.take() == Some(Settled::Made) {
            return Ok(0);
        }
        if rows.is_empty() {
            return Ok(0);
        }
        self.stamp += 1;
        let number = synced.then_some(self.number + 1);
        let version = i64::from(self.epoch) << STAMP_BITS | self.stamp;
        let fence = Fence { writer: self.settings.writer, epoch: self.epoch, number, version };
        let most = deadline.saturating_duration_since(Instant::now());
        let session = self.session.as_ref().expect("it is ready");
        // Which of the two phases the time ran out in is told by the write itself.
        let mut committing = false;
        let broken = match timeout_at(deadline, session.write(rows, fence, most, &mut committing)).await {
            Ok(Ok(nanos)) => {
                self.number = number.unwrap_or(self.number);
                return Ok(nanos);
            }
            Ok(Err(broken)) => broken,
            Err(_) if committing => Broken::Unknown(SLOW.into()),
            Err(_) => Broken::Before(Trouble::Lost(SLOW.into())),
        };
        self.after(broken, number, deadline).await
    }

    /// Brings the session into order after a transaction that was not made for sure.
    async fn after(&mut self, broken: Broken, number: Option<i64>, deadline: Instant) -> Result<u64, Trouble> {
        match broken {
            Broken::Unknown(why) => {
                self.lose();
                self.doubt = number;
                Err(Trouble::Lost(why))
            }
            Broken::Before(Trouble::Lost(why)) => {
                self.lose();
                Err(Trouble::Lost(why))
            }
            Broken::Before(trouble) => {
                self.roll_back(deadline).await;
                Err(trouble)
            }
            Broken::Fenced => {
                self.roll_back(deadline).await;
                self.check_place(deadline).await?;
                Err(self.end(LOST_COMMITS))
            }
        }
    }

    async fn roll_back(&mut self, deadline: Instant) {
        let ask = async |session: &Session| session.client.batch_execute("ROLLBACK").await.map_err(|error| judge(&error));
        if self.on_session(deadline, ask).await.is_err() {
            self.lose();
        }
    }

    pub async fn heal(&mut self) -> Result<Settled, String> {
        if let Some(why) = &self.over {
            return Err(self.refusal(why));
        }
        let deadline = self.deadline();
        match self.ready(deadline).await {
            Ok(()) => Ok(self.settled.take().unwrap_or(Settled::NotMade)),
            Err(trouble) => Err(self.refusal(trouble.why())),
        }
    }

    pub async fn fetch(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        if let Some(late) = self.late.rows.get(&(table, key.to_vec())) {
            return Ok(late.clone());
        }
        let cannot = |work: &Work, why: &str| format!("{}: a row can't be read: {why}. Look after the database", work.place());
        if let Some(away) = &self.away {
            return Err(cannot(self, &away.why));
        }
        let (deadline, writer) = (self.deadline(), self.settings.writer);
        let read = async {
            self.ready(deadline).await?;
            self.on_session(deadline, async |session: &Session| session.get(writer, table, key).await).await
        };
        let result = read.await;
        result.map_err(|trouble| cannot(self, trouble.why()))
    }

    pub async fn page(&self, table: Table, from: &Row, last_slot: i32, most: i64) -> Result<Vec<Row>, String> {
        let writer = self.settings.writer;
        let page = match &self.session {
            Some(session) => session.page(writer, table, from, last_slot, most).await,
            None => Err(Trouble::Lost("the connection is gone".into())),
        };
        page.map_err(|trouble| {
            let (place, why) = (&self.settings.target.place, trouble.why());
            format!("{place}: table {} can't be read: {why}. Start again when the database works", table.name())
        })
    }

    /// The same while the node serves.
    pub async fn small_page(&mut self, table: Table, from: &Row, last_slot: i32, most: i64) -> Result<Vec<Row>, String> {
        let (deadline, writer) = (self.deadline(), self.settings.writer);
        let read = async {
            self.ready(deadline).await?;
            self.on_session(deadline, async |session: &Session| session.page(writer, table, from, last_slot, most).await).await
        };
        let result = read.await;
        result.map_err(|trouble| {
            format!("{}: table {} can't be read: {}. Look after the database", self.place(), table.name(), trouble.why())
        })
    }

    /// A node that has said within the last seconds that it lives.
    pub async fn living_node(&mut self) -> Result<Option<i32>, String> {
        let cluster = self.settings.writer.cluster();
        let living = format!(
            "SELECT node FROM fanal_nodes WHERE cluster = $1 AND node > 0 AND alive \
             AND seen > now() - INTERVAL '{ALIVE_SECONDS} seconds' ORDER BY node LIMIT 1"
        );
        let ask = async |session: &Session| {
            let row = session.client.query_opt(&living, &[&cluster]).await;
            row.map(|row| row.map(|row| row.get(0))).map_err(|error| judge(&error))
        };
        let deadline = self.deadline();
        let result = self.on_session(deadline, ask).await;
        result.map_err(|trouble| trouble.why().to_owned())
    }

    /// Looks after the connection, writes what is late, says that the node lives. Gives the time until it should be called again.
    pub async fn tend(&mut self) -> Duration {
        if self.over.is_some() {
            return LONGEST_WAIT;
        }
        let now = Instant::now();
        if let Some(away) = self.away.as_ref().filter(|away| now < away.next) {
            return away.next - now;
        }
        // The connection's end is heard of while the runtime runs.
        tokio::task::yield_now().await;
        let deadline = self.deadline();
        let tended = match self.ready(deadline).await {
            Ok(()) => self.say_alive(deadline).await,
            Err(trouble) => Err(trouble),
        };
        match tended {
            Ok(()) => {
                if !self.late.rows.is_empty() {
                    // What can't be written stays late.
                    _ = self.apply(&[]).await;
                }
                TEND
            }
            Err(_) if self.over.is_some() => LONGEST_WAIT,
            Err(trouble) => self.stay_away(trouble.why()),
        }
    }

    fn stay_away(&mut self, why: &str) -> Duration {
        let tries = self.away.as_ref().map_or(0, |away| away.tries + 1);
        if tries == 0 {
            tracing::error!("{}: the database is away: {why}. What must be durable is refused", self.settings.target.place);
        }
        self.lose();
        let wait = self.wait(tries);
        self.away = Some(Away { why: format!("the database is away: {why}"), tries, next: Instant::now() + wait });
        wait
    }

    async fn say_alive(&mut self, deadline: Instant) -> Result<(), Trouble> {
        const ALIVE: &str = "UPDATE fanal_nodes SET alive = TRUE, seen = now() WHERE cluster = $1 AND node = $2 AND epoch = $3";
        if self.epoch == 0 || self.said_alive.elapsed() < SAY_ALIVE {
            return Ok(());
        }
        self.say(ALIVE, deadline).await?;
        self.said_alive = Instant::now();
        Ok(())
    }

    async fn say(&mut self, statement: &str, deadline: Instant) -> Result<(), Trouble> {
        let (writer, epoch) = (self.settings.writer, i64::from(self.epoch));
        let ask = async |session: &Session| {
            let said = session.client.execute(statement, &[&writer.cluster(), &writer.node(), &epoch]).await;
            said.map(drop).map_err(|error| judge(&error))
        };
        self.on_session(deadline, ask).await
    }

    /// Says that the node has ended.
    pub async fn close(&mut self) {
        const ENDED: &str = "UPDATE fanal_nodes SET alive = FALSE WHERE cluster = $1 AND node = $2 AND epoch = $3";
        let deadline = self.deadline();
        if !self.late.rows.is_empty() {
            _ = self.apply(&[]).await;
        }
        if !self.late.rows.is_empty() {
            tracing::warn!("{}: {} rows of last presence were not written", self.settings.target.place, self.late.rows.len());
        }
        // Others find out after a while.
        _ = self.say(ENDED, deadline).await;
        self.session = None;
        tokio::task::yield_now().await;
    }
}

const REPLACED: &str = "another process has taken this node's place in the database: stop this one, or give it a number of its own";
const LOST_COMMITS: &str = "the database has lost what this node had stored (a restored backup, or a standby that lagged has taken \
    over): start this node again, so that it serves what is there";
const SLOW: &str = "it did not answer in time (store.timeout_ms)";

async fn bounded<T>(deadline: Instant, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(Trouble::Lost(SLOW.into())))
}

impl Late {
    /// False: there's no room.
    fn put(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> bool {
        self.forget(table, key);
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        if self.bytes + bytes > LATE_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.rows.insert((table, key.to_vec()), value.map(<[u8]>::to_vec));
        true
    }

    fn forget(&mut self, table: Table, key: &[u8]) {
        if let Some(value) = self.rows.remove(&(table, key.to_vec())) {
            self.bytes -= key.len() + value.map_or(0, |value| value.len());
        }
    }
}
