//! etcd's gateway: its calls and answers as values. Numbers of 64 bits are texts in its JSON, keys and values base64; what is 0
//! or empty is left out.

use crate::base::id::NodeId;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A key or value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map(Bytes).map_err(serde::de::Error::custom)
    }
}

/// A number of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Number(pub(super) i64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        String::deserialize(from)?.parse().map(Number).map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    pub(super) key: Bytes,
    pub(super) mod_revision: Number,
    pub(super) value: Bytes,
    pub(super) lease: Number,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    pub(super) revision: Number,
}

/// `kv/range`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Range {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
    #[serde(flatten)]
    pub(super) newest: Option<Newest>,
}

/// Only the key that was changed last, without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Newest {
    limit: Number,
    sort_order: &'static str,
    sort_target: &'static str,
    keys_only: bool,
}

impl Newest {
    pub(super) const ONE: Newest = Newest { limit: Number(1), sort_order: "DESCEND", sort_target: "MOD", keys_only: true };
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ranged {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    /// All that there are, however few were asked for.
    pub(super) count: Number,
}

/// `kv/txn`: all of it, if everything compared is so; else nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Txn {
    pub(super) compare: Vec<Compare>,
    pub(super) success: Vec<Op>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Compare {
    target: &'static str,
    result: &'static str,
    key: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Number>,
}

impl Compare {
    /// The key was last changed in this revision; 0: there is none.
    pub(super) fn unchanged(key: Vec<u8>, mod_revision: i64) -> Compare {
        let mod_revision = Some(Number(mod_revision));
        Compare { target: "MOD", result: "EQUAL", key: Bytes(key), mod_revision, lease: None }
    }

    /// The key is there and hangs on this lease.
    pub(super) fn held(key: Vec<u8>, lease: i64) -> Compare {
        Compare { target: "LEASE", result: "EQUAL", key: Bytes(key), mod_revision: None, lease: Some(Number(lease)) }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) enum Op {
    #[serde(rename = "request_put")]
    Put { key: Bytes, value: Bytes, lease: Number },
    #[serde(rename = "request_delete_range")]
    Delete { key: Bytes },
}

impl Op {
    pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> Op {
        Op::Put { key: Bytes(key), value: Bytes(value), lease: Number(lease) }
    }

    pub(super) fn delete(key: Vec<u8>) -> Op {
        Op::Delete { key: Bytes(key) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) header: Header,
    pub(super) succeeded: bool,
}

/// `lease/grant`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Grant {
    #[serde(rename = "TTL")]
    pub(super) seconds: Number,
}

/// `lease/keepalive`, `lease/revoke`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct LeaseOf {
    #[serde(rename = "ID")]
    pub(super) id: Number,
}

/// What is said of a lease; without a time it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leased {
    #[serde(rename = "ID")]
    pub(super) id: Number,
    #[serde(rename = "TTL")]
    pub(super) seconds: Number,
}

/// A line of an answer that goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line<T> {
    pub(super) result: Option<T>,
}

/// `watch`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Watch {
    pub(super) create_request: WatchFrom,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct WatchFrom {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
    pub(super) start_revision: Number,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) canceled: bool,
    pub(super) events: Vec<Happened>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Happened {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) kv: KeyValue,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Kind {
    #[default]
    Put,
    Delete,
}

/// What a key is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Topic {
    /// `Terms`: what all nodes agreed on.
    Terms,
    /// `Member` that is there; hangs on its lease.
    Member(NodeId),
    /// `Member` that had this number last.
    Holder(NodeId),
    /// `Block` of the table.
    Owners(u8),
}

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys(String);

impl Keys {
    pub(super) fn new(cluster: u16) -> Keys {
        Keys(format!("fanal/{cluster}/"))
    }

    /// All of them: where they begin and end.
    pub(super) fn all(&self) -> (Bytes, Bytes) {
        // Behind "/" comes "0".
        let end = format!("{}0", self.0.trim_end_matches('/'));
        (Bytes(self.0.clone().into_bytes()), Bytes(end.into_bytes()))
    }

    pub(super) fn of(&self, topic: Topic) -> Vec<u8> {
        let prefix = &self.0;
        match topic {
            Topic::Terms => format!("{prefix}terms"),
            Topic::Member(node) => format!("{prefix}members/{}", node.0),
            Topic::Holder(node) => format!("{prefix}holders/{}", node.0),
            Topic::Owners(block) => format!("{prefix}owners/{block}"),
        }
        .into_bytes()
    }

    /// `None`: none of ours.
    pub(super) fn topic(&self, key: &[u8]) -> Option<Topic> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.0)?;
        match rest.split_once('/') {
            None => (rest == "terms").then_some(Topic::Terms),
            Some(("members", node)) => node.parse().ok().map(|node| Topic::Member(NodeId(node))),
            Some(("holders", node)) => node.parse().ok().map(|node| Topic::Holder(NodeId(node))),
            Some(("owners", block)) => block.parse().ok().map(Topic::Owners),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_about_and_others_nothing() {
        let keys = Keys::new(7);
        for topic in [Topic::Terms, Topic::Member(NodeId(3)), Topic::Holder(NodeId(65_535)), Topic::Owners(255)] {
            assert_eq!(keys.topic(&keys.of(topic)), Some(topic));
        }
        for other in ["", "fanal/7/", "fanal/71/terms", "fanal/7/owners/256", "fanal/7/x/1", "fanal/7/members/"] {
            assert_eq!(keys.topic(other.as_bytes()), None, "{other}");
        }
        assert_eq!(keys.all(), (Bytes(b"fanal/7/".to_vec()), Bytes(b"fanal/70".to_vec())));
    }

    #[test]
    fn calls_and_answers_are_what_etcd_writes() {
        let mut txn = Txn::default();
        txn.compare.push(Compare::held(b"foo".to_vec(), 5));
        txn.compare.push(Compare::unchanged(b"foo".to_vec(), 0));
        txn.success.push(Op::put(b"foo".to_vec(), b"bar".to_vec(), 5));
        assert_eq!(
            simd_json::serde::to_string(&txn).unwrap(),
            "{\"compare\":[{\"target\":\"LEASE\",\"result\":\"EQUAL\",\"key\":\"Zm9v\",\"lease\":\"5\"},\
             {\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"Zm9v\",\"mod_revision\":\"0\"}],\
             \"success\":[{\"request_put\":{\"key\":\"Zm9v\",\"value\":\"YmFy\",\"lease\":\"5\"}}]}"
        );
        let mut line = "{\"result\":{\"header\":{\"cluster_id\":\"14443903163313418560\",\"revision\":\"3\",\"raft_term\":\"2\"},\
            \"events\":[{\"type\":\"DELETE\",\"kv\":{\"key\":\"Zm9v\",\"mod_revision\":\"3\"}},{\"kv\":{\"key\":\"Zm9v\"}}]}}"
            .to_owned()
            .into_bytes();
        let watched = simd_json::serde::from_slice::<Line<Watched>>(&mut line).unwrap().result.unwrap();
        assert_eq!((watched.header.revision, watched.events[0].kind, watched.events[1].kind), (Number(3), Kind::Delete, Kind::Put));
        let range = Range { key: Bytes(b"a".to_vec()), range_end: Bytes(b"b".to_vec()), newest: Some(Newest::ONE) };
        assert_eq!(
            simd_json::serde::to_string(&range).unwrap(),
            "{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"limit\":\"1\",\"sort_order\":\"DESCEND\",\"sort_target\":\"MOD\",\
             \"keys_only\":true}"
        );
    }
}
