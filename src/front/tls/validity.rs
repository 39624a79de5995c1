//! When a certificate ends (RFC 5280 4.1.2.5).
//!
//! Lives on: wherever the certificate is read. Rustls doesn't say it, since a server need not know.

use crate::base::time::WallClock;
use yasna::{ASN1Result, BERReaderSeq, Tag};

/// `None`: it can't be read, or it ended before 1970.
pub(super) fn ends(certificate: &[u8]) -> Option<WallClock> {
    let seconds = yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|certificate| {
            let ends = certificate.next().read_sequence(|body| {
                body.read_optional(|version| version.read_tagged(Tag::context(0), |number| number.read_i64()))?;
                // Its serial number, the algorithm of its signature, its issuer.
                for _ in 0..3 {
                    body.next().read_der()?;
                }
                let ends = body.next().read_sequence(|validity| {
                    validity.next().read_der()?;
                    time(validity)
                })?;
                while body.read_optional(|more| more.read_der())?.is_some() {}
                Ok(ends)
            })?;
            certificate.next().read_der()?;
            certificate.next().read_der()?;
            Ok(ends)
        })
    });
    let ms = u64::try_from(seconds.ok()?).ok()?.checked_mul(1000)?;
    Some(WallClock(ms))
}

/// Seconds since 1970. Up to 2049 it is a UTCTime, then a GeneralizedTime.
fn time(reader: &mut BERReaderSeq<'_, '_>) -> ASN1Result<i64> {
    match reader.read_optional(|time| time.read_utctime())? {
        Some(time) => Ok(time.datetime().unix_timestamp()),
        None => Ok(reader.next().read_generalized_time()?.datetime().unix_timestamp()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms() {
        assert_eq!(ends(&certificate(2030)), Some(WallClock(1_898_553_600_000)));
        assert_eq!(ends(&certificate(2100)), Some(WallClock(4_107_542_400_000)));
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_hurts_nobody() {
        let whole = certificate(2030);
        for cut in 0..whole.len() {
            assert_eq!(ends(&whole[..cut]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0x81;
            let _whatever = ends(&bent);
        }
    }
}
