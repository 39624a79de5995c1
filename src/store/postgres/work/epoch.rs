//! Epochs of a deployment, and who has taken which slots in it.
//!
//! Lives on: the storage thread. Serves J10, M1. Invariants: epochs are counted by one node at a time, each holds their row;
//! whoever takes slots over has replaced whoever had taken them before in the same transaction.

use super::{Late, REPLACED, Work};
use crate::store::postgres::session::{Session, judge};
use crate::store::postgres::{EPOCHS, Trouble};
use crate::store::rows::{DIRECTORY_KEY, EPOCH_KEY, decode_u32, encode_u32};
use std::collections::BTreeSet;
use tokio::time::{Instant, sleep};

impl Work {
    /// The slots in which there are accounts, or names of a directory.
    pub async fn inhabited(&self) -> Result<BTreeSet<u16>, String> {
        const SLOTS: &str = "SELECT slot FROM fanal_accounts WHERE cluster = $1 UNION \
            SELECT slot FROM fanal_meta WHERE cluster = $1 AND substr(owner, 1, $3) = $2";
        let Some(session) = &self.session else { return Err(self.refusal("the connection is gone")) };
        let (cluster, names) = (self.settings.writer.cluster(), DIRECTORY_KEY);
        let rows = session.client.query(SLOTS, &[&cluster, &names, &(names.len() as i32)]).await;
        let rows = rows.map_err(|error| self.refusal(judge(&error).why()))?;
        Ok(rows.iter().filter_map(|row| u16::try_from(row.get::<_, i32>(0)).ok()).collect())
    }

    /// Whether nobody has taken this node's place, and the database has all that it stored.
    pub async fn confirm(&mut self) -> Result<bool, String> {
        if self.over.is_some() {
            return Ok(false);
        }
        if let Some(away) = &self.away {
            return Err(away.why.clone());
        }
        let deadline = self.deadline();
        let confirmed = match self.ready(deadline).await {
            Ok(()) => self.check_place(deadline).await,
            Err(trouble) => Err(trouble),
        };
        match confirmed {
            Ok(()) => Ok(true),
            Err(_) if self.over.is_some() => Ok(false),
            Err(trouble) => Err(self.refusal(trouble.why())),
        }
    }

    /// Nothing more is written of these slots.
    pub async fn give_slots(&mut self, slots: &[u16]) -> Result<(), String> {
        const GIVE: &str = "DELETE FROM fanal_slots WHERE cluster = $1 AND node = $2 AND slot = ANY($3::INT4[])";
        let (deadline, writer, slots) = (self.deadline(), self.settings.writer, numbers(slots));
        let give = async {
            self.ready(deadline).await?;
            let ask = async |session: &Session| {
                let given = session.client.execute(GIVE, &[&writer.cluster(), &writer.node(), &slots]).await;
                given.map(drop).map_err(|error| judge(&error))
            };
            self.on_session(deadline, ask).await
        };
        let given = give.await;
        given.map_err(|trouble| self.refusal(trouble.why()))
    }

    /// Begins an epoch, and takes slots over. Where another node has some of them, and is there as far as the database knows:
    /// with `force` it writes nothing more until it begins anew; without, nothing is taken (`None`).
    pub async fn take_slots(&mut self, slots: &[u16], anew: bool, force: bool) -> Result<Option<(u32, bool)>, String> {
        if anew {
            (self.late, self.doubt, self.settled, self.over, self.epoch) = (Late::default(), None, None, None, 0);
        }
        if let Some(away) = &self.away {
            return Err(self.refusal(&away.why));
        }
        let deadline = self.deadline();
        let began = match self.ready(deadline).await {
            Ok(_) => self.on_session(deadline, self.count_epoch(slots, force)).await,
            Err(trouble) => Err(trouble),
        };
        match began {
            Ok(None) => Ok(None),
            Ok(Some((epoch, replaces))) => {
                (self.epoch, self.number, self.stamp) = (epoch, 0, 0);
                Ok(Some((epoch, replaces)))
            }
            Err(trouble) => {
                // What is half way there ends with the connection.
                self.lose();
                Err(self.refusal(trouble.why()))
            }
        }
    }

    /// Counts the deployment's epoch up and takes the node's row: whoever had it before writes nothing more.
    pub async fn begin_epoch(&mut self) -> Result<u32, String> {
        let deadline = Instant::now() + self.settings.patience;
        let mut tries = 0;
        loop {
            let began = match self.ready(deadline).await {
                Ok(_) => self.on_session(deadline, self.count_epoch(&[], true)).await,
                Err(trouble) => Err(trouble),
            };
            let trouble = match began {
                Ok(Some((epoch, _))) => {
                    (self.epoch, self.number, self.stamp) = (epoch, 0, 0);
                    return Ok(epoch);
                }
                Ok(None) => unreachable!("nobody has none of the slots"),
                Err(trouble) => trouble,
            };
            // What is half way there ends with the connection.
            self.lose();
            let why = match trouble {
                Trouble::Refused(why) => return Err(self.refusal(&why)),
                Trouble::Lost(why) | Trouble::Again(why) => why,
            };
            let wait = self.wait(tries);
            tries += 1;
            if Instant::now() + wait >= deadline {
                return Err(self.refusal(&why));
            }
            sleep(wait).await;
        }
    }

    /// The transaction that does it: from the question who has the slots to the end of it nobody else takes any.
    fn count_epoch(
        &self,
        slots: &[u16],
        force: bool,
    ) -> impl AsyncFnOnce(&Session) -> Result<Option<(u32, bool)>, Trouble> + use<> {
        let (writer, held, slots) = (self.settings.writer, i64::from(self.epoch), numbers(slots));
        async move |session: &Session| {
            let counted = async {
                let client = &session.client;
                let (none, cluster) = (encode_u32(0), writer.cluster());
                client.batch_execute("BEGIN").await?;
                client.execute(FIRST_EPOCH, &[&cluster, &EPOCH_KEY, &none]).await?;
                let row = client.query_one(THE_EPOCH, &[&cluster, &EPOCH_KEY]).await?;
                let next = decode_u32(row.get(0)).ok().and_then(|epoch| epoch.checked_add(1)).filter(|&epoch| epoch < EPOCHS);
                let Some(epoch) = next else { return Ok(Err(NONE_LEFT)) };
                if !force && client.query_opt(HELD, &[&cluster, &writer.node(), &slots]).await?.is_some() {
                    client.batch_execute("ROLLBACK").await?;
                    return Ok(Ok(None));
                }
                client.execute(NEXT_EPOCH, &[&cluster, &EPOCH_KEY, &encode_u32(epoch)]).await?;
                let kept = match held {
                    0 => client.execute(TAKE_PLACE, &[&cluster, &writer.node(), &i64::from(epoch)]).await?,
                    held => client.execute(KEEP_PLACE, &[&cluster, &writer.node(), &i64::from(epoch), &held]).await?,
                };
                if kept == 0 {
                    return Ok(Err(REPLACED));
                }
                if writer.node > 0 {
                    client.execute("DELETE FROM fanal_nodes WHERE cluster = $1 AND node = 0", &[&cluster]).await?;
                }
                let mut replaced = 0;
                if !slots.is_empty() {
                    replaced = client.execute(REPLACE, &[&cluster, &writer.node(), &i64::from(epoch), &slots]).await?;
                    client.execute(TAKE_SLOTS, &[&cluster, &writer.node(), &slots]).await?;
                }
                client.batch_execute("COMMIT").await?;
                Ok(Ok(Some((epoch, replaced > 0))))
            };
            let counted = counted.await.map_err(|error: tokio_postgres::Error| judge(&error))?;
            counted.map_err(|why: &str| Trouble::Refused(why.to_owned()))
        }
    }
}

fn numbers(slots: &[u16]) -> Vec<i32> {
    slots.iter().copied().map(i32::from).collect()
}

const FIRST_EPOCH: &str = "INSERT INTO fanal_meta (cluster, slot, owner, rest, value, version) VALUES ($1, 0, $2, '', $3, 0) \
    ON CONFLICT (cluster, slot, owner, rest) DO NOTHING";
const THE_EPOCH: &str = "SELECT value FROM fanal_meta WHERE cluster = $1 AND slot = 0 AND owner = $2 AND rest = '' FOR UPDATE";
const NEXT_EPOCH: &str = "UPDATE fanal_meta SET value = $3 WHERE cluster = $1 AND slot = 0 AND owner = $2 AND rest = ''";
const TAKE_PLACE: &str = "INSERT INTO fanal_nodes (cluster, node, epoch, number, alive, seen) VALUES ($1, $2, $3, 0, TRUE, now()) \
    ON CONFLICT (cluster, node) DO UPDATE SET epoch = excluded.epoch, number = 0, alive = TRUE, seen = excluded.seen";

/// A node that serves keeps its place only if nobody has taken it.
const KEEP_PLACE: &str = "UPDATE fanal_nodes SET epoch = $3, number = 0, alive = TRUE, seen = now() \
    WHERE cluster = $1 AND node = $2 AND epoch = $4";
const NONE_LEFT: &str = "the epoch can't be counted up: the row is damaged, or it's the last one";

/// Another node that is there has some of these slots.
const HELD: &str = "SELECT node FROM fanal_nodes WHERE cluster = $1 AND node <> $2 AND alive AND node IN \
    (SELECT node FROM fanal_slots WHERE cluster = $1 AND slot = ANY($3::INT4[])) LIMIT 1";

/// One that has left in order writes nothing more. Nodes take turns here: each holds the epoch's row.
const REPLACE: &str = "UPDATE fanal_nodes SET epoch = $3, alive = FALSE WHERE cluster = $1 AND node <> $2 AND alive AND node IN \
    (SELECT node FROM fanal_slots WHERE cluster = $1 AND slot = ANY($4::INT4[]))";
const TAKE_SLOTS: &str = "INSERT INTO fanal_slots (cluster, slot, node) SELECT $1::INT4, u.slot, $2::INT4 \
    FROM unnest($3::INT4[]) AS u (slot) ON CONFLICT (cluster, slot) DO UPDATE SET node = excluded.node";
