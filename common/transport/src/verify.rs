//! Checks the certificate of a server.
//!
//! webpki checks chains. It accepts no certificate of an authority as a server's. But a self-signed certificate as
//! Docker's documentation and `openssl req -x509` make it is one: its own authority. Every client in Go or with
//! OpenSSL accepts it when it is itself among the trusted ones, and so do we.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::p521;

/// Accepts servers whose certificate is trusted, or is signed by one that is.
#[derive(Debug)]
pub(crate) struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// `roots` are the `trusted` certificates as authorities.
    pub(crate) fn new(trusted: Vec<CertificateDer<'static>>, roots: RootCertStore) -> Self {
        Self { trusted, roots: Arc::new(roots), algorithms: p521::and_ring() }
    }

    /// Checks the certificate without its name.
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let signed_by_root = |intermediates| {
            verify_server_cert_signed_by_trust_anchor(
                parsed,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )
        };
        if !self.trusted.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            return signed_by_root(intermediates);
        }
        // webpki checks the dates first, then whether it is an authority's, then the use, and last who signed it.
        match signed_by_root(&[]) {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(()),
            Err(error) if is_authority(&error) => match is_for_servers(end_entity) {
                true => Ok(()),
                false => Err(CertificateError::InvalidPurpose.into()),
            },
            result => result,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        self.check(end_entity, &parsed, intermediates, now)?;
        verify_server_name(&parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts every server, for `--insecure`.
#[derive(Debug)]
pub(crate) struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as S;
        vec![
            S::ED25519,
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::ECDSA_NISTP521_SHA512,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
            S::ED448,
            S::RSA_PKCS1_SHA1,
        ]
    }
}

/// Whether webpki says that the server's certificate is an authority's. rustls has no name for this.
fn is_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Why a server's certificate is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// The problem, such as `it expired on …`.
    pub problem: String,
    /// Whether the certificate would be accepted if it, or in most cases its issuer, was among the trusted ones.
    pub unknown: bool,
}

/// What the server says when it ends the handshake; None if the error is about something else.
pub fn refused(error: &Error) -> Option<String> {
    use rustls::AlertDescription as A;
    let Error::AlertReceived(alert) = error else { return None };
    Some(match alert {
        A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => {
            "the server accepts no TLS that is offered: 1.2 or 1.3, keys of RSA, P-256, P-384 or Ed25519, with 1.3 also P-521"
                .to_owned()
        }
        A::CertificateRequired | A::BadCertificate | A::UnknownCA | A::AccessDenied => {
            "the server wants a client certificate, or another one".to_owned()
        }
        A::UnrecognisedName => "the server does not know this name".to_owned(),
        other => format!("the server ended the TLS handshake (alert {})", u8::from(*other)),
    })
}

/// Why the server's certificate is not trusted; None if the error is about something else.
pub fn untrusted(error: &Error) -> Option<Untrusted> {
    let Error::InvalidCertificate(error) = error else { return None };
    let (problem, unknown) = problem(error);
    Some(Untrusted { problem, unknown })
}

fn problem(error: &CertificateError) -> (String, bool) {
    use CertificateError as E;
    let fixed = |text: &str| (text.to_owned(), false);
    match error {
        E::UnknownIssuer => ("its issuer is unknown".to_owned(), true),
        E::Other(_) if is_authority(&Error::InvalidCertificate(error.clone())) => {
            ("it is an authority's, not a server's".to_owned(), true)
        }
        E::Expired => fixed("it has expired"),
        E::ExpiredContext { not_after, .. } => (format!("it expired on {}", date(*not_after)), false),
        E::NotValidYet => fixed("it is not valid yet"),
        E::NotValidYetContext { not_before, .. } => {
            (format!("it is not valid before {}", date(*not_before)), false)
        }
        E::NotValidForName => fixed("it is for another host"),
        E::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            match names.is_empty() {
                true => fixed("it names no host (subjectAltName)"),
                false => (format!("it is for {}", names.join(", ")), false),
            }
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            fixed("it is not for servers (extendedKeyUsage)")
        }
        E::BadSignature => ("its issuer is not the trusted certificate of the same name".to_owned(), true),
        E::BadEncoding => fixed("it cannot be read"),
        E::Revoked => fixed("it is revoked"),
        E::Other(other) => match other.0.downcast_ref() {
            Some(webpki::Error::UnsupportedCertVersion) => {
                fixed("it has an old version without extensions, not version 3")
            }
            _ => fixed("it breaks the rules for certificates (RFC 5280)"),
        },
        _ => fixed("it is signed in a way that cannot be checked here"),
    }
}

fn date(time: UnixTime) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

/// The name in `DnsName("host")` or `IpAddress(127.0.0.1)`, as webpki writes it.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// The object identifier 2.5.29.37, the extension extKeyUsage (RFC 5280, section 4.2.1.12).
const USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 1.3.6.1.5.5.7.3.1 (serverAuth) and 2.5.29.37.0 (anyExtendedKeyUsage).
const FOR_SERVERS: [&[u8]; 2] = [&[0x2b, 6, 1, 5, 5, 7, 3, 1], &[0x55, 0x1d, 0x25, 0]];

/// Whether a certificate's extKeyUsage, if it has one, allows a server. webpki looks at it only in certificates that are
/// no authority's. False if the certificate cannot be read.
fn is_for_servers(certificate: &[u8]) -> bool {
    usages(certificate)
        .is_some_and(|usages| usages.is_none_or(|usages| usages.iter().any(|it| FOR_SERVERS.contains(it))))
}

/// The usages in a certificate; the inner None if it lists none (RFC 5280, section 4.1).
fn usages(certificate: &[u8]) -> Option<Option<Vec<&[u8]>>> {
    let (0x30, certificate, _) = element(certificate)? else { return None };
    let (0x30, mut fields, _) = element(certificate)? else { return None };
    while !fields.is_empty() {
        let (tag, field, rest) = element(fields)?;
        fields = rest;
        // `extensions [3] EXPLICIT SEQUENCE OF Extension`
        if tag != 0xa3 {
            continue;
        }
        let (0x30, mut extensions, _) = element(field)? else { return None };
        while !extensions.is_empty() {
            let (0x30, extension, rest) = element(extensions)? else { return None };
            extensions = rest;
            let (6, id, rest) = element(extension)? else { return None };
            if id != USAGE {
                continue;
            }
            // `critical BOOLEAN` may be left out.
            let value = match element(rest)? {
                (1, _, rest) => element(rest)?,
                value => value,
            };
            let (4, value, _) = value else { return None };
            let (0x30, mut list, _) = element(value)? else { return None };
            let mut usages = Vec::new();
            while !list.is_empty() {
                let (6, usage, rest) = element(list)? else { return None };
                usages.push(usage);
                list = rest;
            }
            return Some(Some(usages));
        }
    }
    Some(None)
}

/// The first element of DER (X.690): its tag, its content, and what follows it.
fn element(text: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = text.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
