//! What a log-in can be bound to: data of the TLS connection, or of the server it leads to, by which the server notices that the
//! client speaks with somebody in between (RFC 5056).
//!
//! Lives on: the core that owns the connection; values alone. Serves C8; XEP-0440. Pure.

/// RFC 9266: 32 bytes of this connection alone.
pub const EXPORTER: &str = "tls-exporter";
/// RFC 5929 4: a hash of the server's certificate.
pub const END_POINT: &str = "tls-server-end-point";

/// What one connection has of it, in private.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bindings {
    pub exporter: Option<[u8; 32]>,
    pub end_point: Option<EndPoint>,
}

impl Bindings {
    /// What a proof that says to be bound to this kind must have in it.
    pub fn data(&self, kind: &str) -> Option<&[u8]> {
        match kind {
            EXPORTER => self.exporter.as_ref().map(|data| &data[..]),
            END_POINT => self.end_point.as_ref().map(EndPoint::bytes),
            _ => None,
        }
    }

    /// The kinds there are, the best first.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        [EXPORTER, END_POINT].into_iter().filter(|kind| self.data(kind).is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.kinds().next().is_none()
    }
}

/// A hash of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndPoint {
    bytes: [u8; EndPoint::MOST],
    length: u8,
}

impl EndPoint {
    /// Bytes of the longest hash, SHA-512.
    const MOST: usize = 64;

    /// `None`: it is longer than hashes are.
    pub fn new(hash: &[u8]) -> Option<EndPoint> {
        let mut bytes = [0; EndPoint::MOST];
        bytes.get_mut(..hash.len())?.copy_from_slice(hash);
        Some(EndPoint { bytes, length: hash.len() as u8 })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xep_0440_each_kind_has_its_data_and_what_is_not_there_is_not_named() {
        let end_point = EndPoint::new(&[7; 48]);
        let both = Bindings { exporter: Some([9; 32]), end_point };
        assert_eq!(both.kinds().collect::<Vec<_>>(), [EXPORTER, END_POINT]);
        assert_eq!((both.data(EXPORTER), both.data(END_POINT)), (Some(&[9; 32][..]), Some(&[7; 48][..])));
        assert_eq!((both.data("tls-unique"), both.data("")), (None, None));
        let one = Bindings { exporter: None, end_point };
        assert_eq!((one.kinds().collect::<Vec<_>>(), one.data(EXPORTER)), (vec![END_POINT], None));
        assert!(Bindings::default().is_empty() && !one.is_empty());
    }

    #[test]
    fn a_hash_keeps_its_length() {
        for length in [0, 28, 32, 64] {
            assert_eq!(EndPoint::new(&vec![1; length]).unwrap().bytes(), vec![1; length]);
        }
        assert_eq!(EndPoint::new(&[1; 65]), None);
    }
}
