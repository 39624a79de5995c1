//! After a start: everything stored goes to the cores.
//!
//! Lives on: the thread that starts the node. Serves J10, Z4. Invariant: a row that can't be read stops the start; a damaged store
//! is never silently emptied.

use super::StartError;
use super::cluster::TablePlace;
use crate::base::id::{NodeId, home_of_slot, slot_of};
use crate::base::map::SLOTS;
use crate::ownership::Stored;
use crate::shard::Shard;
use crate::store::rows::{BadRow, DIRECTORY_KEY, slot_of_key};
use crate::store::{Backend, Table};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the store has of who owns which users.
pub(super) struct Kept {
    /// The table, if this node keeps it.
    pub table: Stored,
    /// The slots of the users and names that are in this store are this node's; nobody owns the others yet. A store that is shared
    /// says nothing of that.
    pub owners: Arc<[NodeId]>,
    /// There, the slots in which there are accounts, or names of a directory.
    pub inhabited: BTreeSet<u16>,
}

/// From a store that nodes share, what is the deployment's, and which clusters there are: users, and the names of a directory, are
/// loaded when this node gets their slots.
fn load_shared(backend: &dyn Backend, shards: &mut [Shard]) -> Result<Kept, StartError> {
    let owners: Arc<[NodeId]> = vec![NodeId::default(); SLOTS].into();
    let mut kept = Kept { table: Stored::default(), owners: owners.clone(), inhabited: BTreeSet::new() };
    let mut row = |key: &[u8], value: &[u8]| {
        shards.iter_mut().try_for_each(|shard| shard.load_cluster(key, value)).map_err(|_| BadRow::Fields)?;
        if slot_of_key(Table::Meta, key).is_none() { kept.table.load(key, value) } else { Ok(()) }
    };
    backend.load_slots(Table::Meta, 0..=0, &mut row, &mut |_, _| ()).map_err(StartError::Load)?;
    kept.inhabited = backend.inhabited().map_err(StartError::Load)?;
    shards.iter_mut().for_each(|shard| shard.out.map.set_owners(owners.clone()));
    Ok(kept)
}

/// Gives every stored row to the core whose it is. Facts about the deployment go to all. `table`: of a node in a cluster.
pub(super) fn load(backend: &dyn Backend, shards: &mut [Shard], table: Option<&TablePlace>) -> Result<Kept, StartError> {
    let (cores, node) = (shards.len() as u16, shards[0].settings.node);
    if table.is_some_and(|table| table.terms.take_over) {
        return load_shared(backend, shards);
    }
    let (mut kept, mut owners) = (Stored::default(), vec![NodeId::default(); SLOTS]);
    for table in Table::ALL {
        let mut bad = None;
        let mut row = |key: &[u8], value: &[u8]| {
            let owner = key.split(|&byte| byte == 0).next().unwrap_or_default();
            let slot = slot_of(std::str::from_utf8(owner).unwrap_or_default());
            let at_home = |shard: &Shard| table == Table::Meta || shard.settings.core == home_of_slot(slot, cores);
            for shard in shards.iter_mut().filter(|shard| at_home(shard)) {
                if let Err(why) = shard.load(table, key, value) {
                    bad.get_or_insert(why);
                }
            }
            match table {
                Table::Accounts => owners[usize::from(slot)] = node,
                Table::Meta => {
                    kept.load(key, value).err().into_iter().for_each(|why| _ = bad.get_or_insert(why.to_string()));
                    let slot = slot_of_key(table, key).filter(|_| key.starts_with(DIRECTORY_KEY));
                    slot.into_iter().for_each(|slot| owners[usize::from(slot)] = node);
                }
                _ => {}
            }
            Ok(())
        };
        backend.load(table, &mut row, &mut |_, _| ()).map_err(StartError::Load)?;
        if let Some(why) = bad {
            return Err(StartError::Load(format!("{why}. Restore the store from a backup, or delete the row")));
        }
    }
    let owners: Arc<[NodeId]> = owners.into();
    for shard in shards {
        if shard.settings.links.is_some() {
            shard.out.map.set_owners(owners.clone());
        }
        shard.homes.start(&mut shard.out);
    }
    Ok(Kept { table: kept, owners, inhabited: BTreeSet::new() })
}
