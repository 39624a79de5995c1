//! After a start: everything stored goes to the cores.
//!
//! Lives on: the thread that starts the node. Serves J10, Z4. Invariant: a row that can't be read stops the start; a damaged store
//! is never silently emptied.

use super::StartError;
use crate::base::id::{NodeId, home_of_slot, slot_of};
use crate::base::map::SLOTS;
use crate::ownership::Stored;
use crate::shard::Shard;
use crate::store::{Backend, Table};
use std::sync::Arc;

/// What the store has of who owns which users.
pub(super) struct Kept {
    /// The table, if this node keeps it.
    pub table: Stored,
    /// The slots of the users who are in this store are this node's; nobody owns the others yet.
    pub owners: Arc<[NodeId]>,
}

/// Gives every stored row to the core whose it is. Facts about the deployment go to all.
pub(super) fn load(backend: &dyn Backend, shards: &mut [Shard]) -> Result<Kept, StartError> {
    let (cores, node) = (shards.len() as u16, shards[0].settings.node);
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
                Table::Meta => kept.load(key, value).err().into_iter().for_each(|why| _ = bad.get_or_insert(why.to_string())),
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
    Ok(Kept { table: kept, owners })
}
