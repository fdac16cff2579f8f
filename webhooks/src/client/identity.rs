//! Client certificates, and how TLS is spoken with and without one.

use std::sync::Arc;

use rustls::{
    ClientConfig,
    client::danger::ServerCertVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};

/// Most bytes of a certificate chain in PEM: ten certificates of RSA keys and some text.
pub const CERTIFICATE_PEM_BYTES_MAX: usize = 64 * 1_024;

/// Most bytes of a private key in PEM: one of RSA with 8,192 bits has an eighth as many.
pub const PRIVATE_KEY_PEM_BYTES_MAX: usize = 64 * 1_024;

/// Why a certificate and a key are not a client's identity. Says nothing about the key's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// No certificate, or too much of it.
    #[error("the certificate chain is not PEM of at most {CERTIFICATE_PEM_BYTES_MAX} bytes")]
    Certificate,
    /// No private key, or too much of it.
    #[error("the private key is not unencrypted PEM of at most {PRIVATE_KEY_PEM_BYTES_MAX} bytes")]
    PrivateKey,
    /// The key is another certificate's, or of a kind that TLS does not know.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// A certificate chain and the key of its first certificate.
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// By which connections of one identity are told from another's.
    digest: [u8; 32],
}

impl Identity {
    /// The identity that these two texts describe, checked to belong together.
    pub(super) fn new(
        certificate_pem: &str,
        private_key_pem: &str,
    ) -> Result<Self, InvalidIdentity> {
        if certificate_pem.len() > CERTIFICATE_PEM_BYTES_MAX {
            return Err(InvalidIdentity::Certificate);
        }
        if private_key_pem.len() > PRIVATE_KEY_PEM_BYTES_MAX {
            return Err(InvalidIdentity::PrivateKey);
        }
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
        let Some(chain) = chain.ok().filter(|chain| !chain.is_empty()) else {
            return Err(InvalidIdentity::Certificate);
        };
        let Ok(key) = PrivateKeyDer::from_pem_slice(private_key_pem.as_bytes()) else {
            return Err(InvalidIdentity::PrivateKey);
        };
        let certified = rustls::sign::CertifiedKey::from_der(
            chain.clone(),
            key.clone_key(),
            &rustls::crypto::aws_lc_rs::default_provider(),
        );
        if certified.is_err() {
            return Err(InvalidIdentity::Mismatch);
        }
        let mut digest = Sha256::new();
        for certificate in &chain {
            digest.update(certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        digest.update(key.secret_der());
        Ok(Self {
            chain,
            key,
            digest: digest.finalize().into(),
        })
    }

    pub(super) const fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// What all TLS connections have in common: the roots that are trusted, read once, and the cryptography.
#[derive(Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Tls {
    /// Trusts whom the operating system trusts.
    pub(super) fn of_system() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
        Ok(Self {
            provider,
            verifier: Arc::new(verifier),
        })
    }

    /// Trusts these roots alone.
    #[cfg(test)]
    pub(super) fn trusting(roots: rustls::RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        );
        #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
        let verifier = verifier.build().unwrap();
        Self { provider, verifier }
    }

    /// How a client speaks TLS, with its certificate if it has one.
    pub(super) fn config(
        &self,
        identity: Option<&Identity>,
    ) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}
