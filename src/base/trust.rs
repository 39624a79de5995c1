//! Servers that are known by something else than their name: the one place where a certificate is not checked against authorities.
//!
//! Lives on: whatever thread shakes hands. Serves C8. Pure: a function of the certificate. Invariant: whoever is taken for the
//! server has proved that the certificate it shows is its own.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// Takes any server for the right one: nobody listens in, but somebody may stand between.
pub fn anybody() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Known { certificate: None, provider: aws_lc_rs::default_provider() })
}

/// Takes a server for the right one that has this certificate, whatever it says.
pub fn whoever_has(certificate: CertificateDer<'static>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Known { certificate: Some(certificate), provider: aws_lc_rs::default_provider() })
}

#[derive(Debug)]
struct Known {
    /// `None`: any.
    certificate: Option<CertificateDer<'static>>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _issuers: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.certificate {
            Some(known) if known != certificate => Err(CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
