//! One core's state and the only place where it changes: `Shard::step(now, Input, &mut Outbox)`.
