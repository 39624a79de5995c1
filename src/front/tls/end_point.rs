//! What a certificate is to a log-in that is bound to it: tls-server-end-point (RFC 5929 4.1).
//!
//! Lives on: wherever the certificate is read. Invariant: the hash is the one that the certificate's issuer has signed by, SHA-256
//! in place of MD5 and SHA-1. A signature that names none leaves the binding undefined, and so there is none: for Ed25519 OpenSSL
//! knows no hash either, and what is built on it (PostgreSQL, say) fails instead of guessing.

use crate::front::binding::EndPoint;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, BERReaderSeq, Tag};

/// RFC 4055 3.1: a signature whose hash stands behind its name.
const RSA_PSS: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 10];

/// `None`: it is no certificate, or signed by what has no single hash.
pub(super) fn of(certificate: &[u8]) -> Option<EndPoint> {
    let hash = yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|certificate| {
            certificate.next().read_der()?;
            let hash = certificate.next().read_sequence(hash_of_signature)?;
            certificate.next().read_der()?;
            Ok(hash)
        })
    });
    match hash.ok()? {
        Hash::Sha224 => EndPoint::new(&Sha224::digest(certificate)),
        Hash::Sha256 => EndPoint::new(&Sha256::digest(certificate)),
        Hash::Sha384 => EndPoint::new(&Sha384::digest(certificate)),
        Hash::Sha512 => EndPoint::new(&Sha512::digest(certificate)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// An AlgorithmIdentifier (RFC 5280 4.1.1.2).
fn hash_of_signature(reader: &mut BERReaderSeq<'_, '_>) -> ASN1Result<Hash> {
    let name = reader.next().read_oid()?;
    let hash = match name.components()[..] == RSA_PSS {
        true => reader.next().read_sequence(hash_of_pss),
        false => by_signature(name.components()).ok_or(ASN1Error::new(ASN1ErrorKind::Invalid)),
    }?;
    skip(reader)?;
    Ok(hash)
}

/// RSASSA-PSS-params (RFC 4055 3.1): the hash is SHA-1 where none is named.
fn hash_of_pss(reader: &mut BERReaderSeq<'_, '_>) -> ASN1Result<Hash> {
    let named = reader.read_optional(|hash| hash.read_tagged(Tag::context(0), hash_named))?;
    skip(reader)?;
    Ok(named.unwrap_or(Hash::Sha256))
}

fn hash_named(reader: BERReader<'_, '_>) -> ASN1Result<Hash> {
    reader.read_sequence(|hash| {
        let name = hash.next().read_oid()?;
        skip(hash)?;
        by_name(name.components()).ok_or(ASN1Error::new(ASN1ErrorKind::Invalid))
    })
}

/// What is left of a sequence.
fn skip(reader: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    while reader.read_optional(|more| more.read_der())?.is_some() {}
    Ok(())
}

/// RFC 3279 2.2.1 and 2.2.3, RFC 4055 5, RFC 5758 3.2: RSA and ECDSA.
fn by_signature(name: &[u64]) -> Option<Hash> {
    match name {
        // By MD5, SHA-1, SHA-256; and so on.
        [1, 2, 840, 113_549, 1, 1, 4 | 5 | 11] | [1, 2, 840, 10_045, 4, 1] | [1, 2, 840, 10_045, 4, 3, 2] => Some(Hash::Sha256),
        [1, 2, 840, 113_549, 1, 1, 12] | [1, 2, 840, 10_045, 4, 3, 3] => Some(Hash::Sha384),
        [1, 2, 840, 113_549, 1, 1, 13] | [1, 2, 840, 10_045, 4, 3, 4] => Some(Hash::Sha512),
        [1, 2, 840, 113_549, 1, 1, 14] | [1, 2, 840, 10_045, 4, 3, 1] => Some(Hash::Sha224),
        _ => None,
    }
}

/// RFC 4055 2.1.
fn by_name(name: &[u64]) -> Option<Hash> {
    match name {
        [1, 3, 14, 3, 2, 26] | [2, 16, 840, 1, 101, 3, 4, 2, 1] => Some(Hash::Sha256),
        [2, 16, 840, 1, 101, 3, 4, 2, 2] => Some(Hash::Sha384),
        [2, 16, 840, 1, 101, 3, 4, 2, 3] => Some(Hash::Sha512),
        [2, 16, 840, 1, 101, 3, 4, 2, 4] => Some(Hash::Sha224),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA256};
    use rcgen::{PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, PKCS_RSA_SHA384, PKCS_RSA_SHA512, SignatureAlgorithm};
    use yasna::models::ObjectIdentifier;
    use yasna::{DERWriterSeq, construct_der};

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    fn hash(hash: Hash, of: &[u8]) -> Vec<u8> {
        match hash {
            Hash::Sha224 => Sha224::digest(of).to_vec(),
            Hash::Sha256 => Sha256::digest(of).to_vec(),
            Hash::Sha384 => Sha384::digest(of).to_vec(),
            Hash::Sha512 => Sha512::digest(of).to_vec(),
        }
    }

    #[test]
    fn rfc_5929_a_certificate_is_hashed_as_its_signature_was() {
        let rows = [
            (&PKCS_ECDSA_P256_SHA256, Hash::Sha256),
            (&PKCS_ECDSA_P384_SHA384, Hash::Sha384),
            (&PKCS_ECDSA_P521_SHA512, Hash::Sha512),
            (&PKCS_ECDSA_P521_SHA256, Hash::Sha256),
            (&PKCS_RSA_SHA256, Hash::Sha256),
            (&PKCS_RSA_SHA384, Hash::Sha384),
            (&PKCS_RSA_SHA512, Hash::Sha512),
        ];
        for (algorithm, expected) in rows {
            let certificate = certificate(algorithm);
            assert_eq!(of(&certificate).expect("a hash").bytes(), hash(expected, &certificate), "{algorithm:?}");
        }
    }

    #[test]
    fn rfc_5929_a_signature_without_a_hash_gives_nothing_to_be_bound_to() {
        assert_eq!(of(&certificate(&PKCS_ED25519)), None);
    }

    /// A certificate that says nothing but how it was signed.
    fn signed(signature: &[u64], parameters: impl FnOnce(&mut DERWriterSeq<'_>)) -> Vec<u8> {
        construct_der(|writer| {
            writer.write_sequence(|certificate| {
                certificate.next().write_sequence(|_| ());
                certificate.next().write_sequence(|algorithm| {
                    algorithm.next().write_oid(&ObjectIdentifier::from_slice(signature));
                    parameters(algorithm);
                });
                certificate.next().write_bitvec_bytes(&[0], 8);
            });
        })
    }

    #[test]
    fn rfc_5929_md5_and_sha_1_become_sha_256() {
        let (md5, sha_1) = ([1, 2, 840, 113_549, 1, 1, 4], [1, 2, 840, 113_549, 1, 1, 5]);
        for signature in [&md5[..], &sha_1, &[1, 2, 840, 10_045, 4, 1]] {
            let certificate = signed(signature, |algorithm| algorithm.next().write_null());
            assert_eq!(of(&certificate).expect("a hash").bytes(), hash(Hash::Sha256, &certificate), "{signature:?}");
        }
    }

    #[test]
    fn rfc_5929_sha_224_stays_what_it_is() {
        for signature in [[1, 2, 840, 113_549, 1, 1, 14], [1, 2, 840, 10_045, 4, 3, 1]] {
            let certificate = signed(&signature, |_| ());
            assert_eq!(of(&certificate).expect("a hash").bytes(), hash(Hash::Sha224, &certificate), "{signature:?}");
        }
    }

    #[test]
    fn rfc_4055_the_hash_of_a_pss_signature_stands_in_its_parameters() {
        let rows = [
            (None, Hash::Sha256),
            (Some(&[1, 3, 14, 3, 2, 26][..]), Hash::Sha256),
            (Some(&[2, 16, 840, 1, 101, 3, 4, 2, 1]), Hash::Sha256),
            (Some(&[2, 16, 840, 1, 101, 3, 4, 2, 2]), Hash::Sha384),
            (Some(&[2, 16, 840, 1, 101, 3, 4, 2, 3]), Hash::Sha512),
        ];
        let made = |named: Option<&[u64]>| {
            signed(&RSA_PSS, |algorithm| {
                algorithm.next().write_sequence(|parameters| {
                    if let Some(name) = named {
                        parameters.next().write_tagged(Tag::context(0), |hash| {
                            hash.write_sequence(|hash| {
                                hash.next().write_oid(&ObjectIdentifier::from_slice(name));
                                hash.next().write_null();
                            });
                        });
                    }
                    parameters.next().write_tagged(Tag::context(2), |salt| salt.write_i64(32));
                });
            })
        };
        for (named, expected) in rows {
            let certificate = made(named);
            assert_eq!(of(&certificate).expect("a hash").bytes(), hash(expected, &certificate), "{named:?}");
        }
        assert_eq!(of(&made(Some(&[1, 2, 3]))), None, "a hash that nobody knows");
        assert_eq!(of(&signed(&RSA_PSS, |_| ())), None, "no parameters");
    }

    #[test]
    fn what_is_no_certificate_has_no_hash_and_hurts_nobody() {
        let whole = certificate(&PKCS_ECDSA_P256_SHA256);
        for cut in 0..whole.len() {
            assert_eq!(of(&whole[..cut]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0x81;
            let _whatever = of(&bent);
        }
    }
}
