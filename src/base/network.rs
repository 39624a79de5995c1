//! A range of addresses, as people write it: `127.0.0.0/8`, `2001:db8::/32`, or one address.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The text as a network; `None`: it is none.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Network { address, bits })
    }

    /// Whether an address is in it. IPv4 addresses are the same when they are written as IPv6.
    pub fn has(self, peer: IpAddr) -> bool {
        let beside = if self.address.is_ipv4() { 96 } else { 0 };
        let differ = mapped(self.address) ^ mapped(peer);
        differ.leading_zeros() >= beside + u32::from(self.bits)
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl TryFrom<String> for Network {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Network, &'static str> {
        Network::parse(&text).ok_or("not an address, nor an address with a number of bits")
    }
}

impl From<Network> for String {
    fn from(Network { address, bits }: Network) -> String {
        format!("{address}/{bits}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        let has = |network: &str, peer: &str| Network::parse(network).unwrap().has(peer.parse().unwrap());
        assert!(has("127.0.0.0/8", "127.3.2.1") && has("127.0.0.0/8", "::ffff:127.3.2.1") && !has("127.0.0.0/8", "128.0.0.1"));
        assert!(has("10.1.2.3", "10.1.2.3") && !has("10.1.2.3", "10.1.2.4") && has("0.0.0.0/0", "10.1.2.3"));
        assert!(has("2001:db8::/32", "2001:db8:7::1") && !has("2001:db8::/32", "2001:db9::1") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("::1", "::1") && !has("::1", "::2") && has("::/0", "10.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
