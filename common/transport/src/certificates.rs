//! Files of certificates and keys in PEM.

use std::{fs, io, path::Path};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// A certificate with its chain, and its key.
pub type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificates that the system trusts.
pub fn system() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// The certificates in a file.
///
/// # Errors
/// When the file cannot be read, or has no certificate.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(&fs::read(path)?).collect::<Result<Vec<_>, _>>();
    match found.map_err(unreadable)? {
        found if found.is_empty() => Err(io::Error::other("it has no certificate")),
        found => Ok(found),
    }
}

/// The first private key in a file.
///
/// # Errors
/// When the file cannot be read, or has no key.
pub fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&fs::read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => io::Error::other("it has no private key"),
        error => unreadable(error),
    })
}

fn unreadable(error: pem::Error) -> io::Error {
    io::Error::other(match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section has no valid begin".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        error => error.to_string(),
    })
}
