//! The admin API's way to the cores: each request becomes an order to the home of the user it is about.
//!
//! Lives on: the control thread. Serves C8 (transfer), G5.

use super::control::Controller;
use super::owners::Desk;
use crate::admin::{ClientEntry, ClusterList, ClusterStatus, Control, Forgotten, Health, OwnersOrder, Refusal, UserList};
use crate::base::credentials::{ITERATIONS, SALT_BYTES, ScramCredentials};
use crate::base::jid::Bare;
use crate::metrics::fields::NodeCount;
use crate::metrics::snapshot::Snapshot;
use crate::shard::ClientLine;
use hdrhistogram::Histogram;

impl Control for Controller {
    fn snapshots(&mut self) -> Result<Vec<Snapshot>, Refusal> {
        Controller::snapshots(self).map_err(Refusal::Unavailable)
    }

    fn node_counts(&mut self) -> Vec<NodeCount> {
        let store = self.store.figures();
        let count = |name, help, value| NodeCount { name, help, value };
        vec![
            count("store_commits", "Commits made durable", store.commits),
            count("store_commits_failed", "Commits that could not be made", store.failed),
            count("store_commits_refused", "Commits that the store had no room for", store.refused),
            count(
                "store_transactions",
                "Transactions in which commits were made, each with one wait for the disk",
                store.transactions,
            ),
            count("store_rows", "Rows written and deleted", store.rows),
            count("store_bytes", "Bytes of keys and values written", store.bytes),
            count("store_connects", "Connections made to the database", store.health.connects),
            count("store_losses", "Connections to the database that broke", store.health.losses),
            count("store_retries", "Transactions tried again", store.health.retries),
            count("store_settled", "Transactions of unknown end that were asked for", store.health.settled),
            count(
                "store_late_dropped",
                "Rows of last presence that found no room to wait for the database",
                store.health.late_dropped,
            ),
        ]
    }

    fn store_up(&mut self) -> bool {
        self.store.figures().health.up
    }

    fn store_syncs(&mut self) -> Histogram<u64> {
        self.store.sync_times()
    }

    fn certificate_seconds_left(&mut self) -> Option<i64> {
        self.keeper.seconds_left()
    }

    fn link_certificate_seconds_left(&mut self) -> Option<i64> {
        self.keeper.link_seconds_left()
    }

    fn cluster(&mut self) -> Result<ClusterStatus, Refusal> {
        let owners = self.owners.as_ref().map(Desk::status).transpose()?;
        Ok(ClusterStatus { owners, ..Controller::cluster(self).map_err(Refusal::Unavailable)? })
    }

    fn share_out(&mut self, order: OwnersOrder) -> Result<String, Refusal> {
        let alone = || Refusal::Conflict("this node is alone: all users are its own (cluster.number, cluster.node)".into());
        self.owners.as_ref().ok_or_else(alone)?.share_out(order)
    }

    fn health(&mut self) -> Health {
        match Controller::snapshots(self) {
            Ok(_) => Health { live: true, ready: true, why: String::new() },
            Err(why) => Health { live: false, ready: false, why },
        }
    }

    fn add_user(&mut self, jid: &Bare, password: Option<&str>) -> Result<(), Refusal> {
        let credentials = match password {
            None => None,
            Some(password) => {
                let mut salt = [0; SALT_BYTES];
                getrandom::fill(&mut salt).map_err(|error| Refusal::Unavailable(format!("the system gives no salt: {error}")))?;
                Some(ScramCredentials::from_password(password, &salt, ITERATIONS))
            }
        };
        Controller::add_user(self, jid, credentials)
    }

    fn remove_user(&mut self, jid: &Bare) -> Result<(), Refusal> {
        Controller::remove_user(self, jid)
    }

    fn list_users(&mut self, after: Option<&Bare>, limit: usize, node: Option<u16>) -> Result<UserList, Refusal> {
        self.users(after, limit, node)
    }

    fn clusters(&mut self) -> Result<ClusterList, Refusal> {
        Controller::clusters(self)
    }

    fn forget_cluster(&mut self, number: u16, force: bool) -> Result<Forgotten, Refusal> {
        Controller::forget_cluster(self, number, force)
    }

    fn clients(&mut self, most: usize) -> Result<Vec<ClientEntry>, Refusal> {
        let entry = |client: ClientLine| ClientEntry {
            core: client.core.0,
            peer: client.peer,
            jid: client.user.map(|(jid, resource)| format!("{jid}/{resource}")),
            trunk: client.is_trunk,
            sessions: client.sessions,
            units_in: client.load.taken.units,
            units_out: client.load.units_out,
            publications: client.load.taken.publications,
            published_bytes: client.load.taken.published_bytes,
        };
        Ok(Controller::clients(self, most).map_err(Refusal::Unavailable)?.into_iter().map(entry).collect())
    }

    fn locate(&mut self, jid: &Bare) -> Result<Option<u16>, Refusal> {
        Controller::locate(self, jid)
    }

    fn transfer(&mut self, jid: &Bare, address: &str) -> Result<usize, Refusal> {
        match Controller::transfer(self, jid, address)? {
            0 => Err(Refusal::Missing(format!("{jid} has no session here"))),
            told => Ok(told),
        }
    }

    fn reload_certificate(&mut self) -> Result<String, Refusal> {
        self.keeper.reload().map_err(|error| Refusal::Conflict(format!("{error}. The certificate stays as it was")))
    }
}
