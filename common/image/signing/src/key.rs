//! Keys in files: PEM as OpenSSL writes it, and cosign's encrypted keys.

use base64::{Engine, prelude::BASE64_STANDARD};
use crypto_secretbox::{
    KeyInit, XSalsa20Poly1305,
    aead::{Aead, generic_array::GenericArray},
};
use p256::{
    SecretKey,
    ecdsa::{
        Signature, SigningKey, VerifyingKey,
        signature::{Signer, Verifier},
    },
    pkcs8::{DecodePrivateKey, DecodePublicKey},
};
use serde::Deserialize;

/// The words in the first line of cosign's encrypted keys, old and new.
const ENCRYPTED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
/// The most memory that a key may ask for, in bytes. cosign's take 32 or 64 MiB.
const MAX_MEMORY: u64 = 256 << 20;
/// The most bytes that scrypt may mix for a key. It mixes some hundreds of MiB a second.
const MAX_WORK: u64 = 1 << 30;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a key.
    #[error("it is no private key for ECDSA with P-256, in PEM")]
    NoPrivateKey,
    /// The text is not a key.
    #[error("it is no public key for ECDSA with P-256, in PEM")]
    NoPublicKey,
    /// The encrypted key is not as cosign writes it.
    #[error("its encryption is not cosign's: {0}")]
    Encryption(String),
    /// The key cannot be decrypted.
    #[error("the password is wrong")]
    Password,
}

/// A key to sign with.
pub struct PrivateKey(SigningKey);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// The content of an encrypted key (`encrypted` of go-securesystemslib).
#[derive(Deserialize)]
struct Encrypted {
    kdf: Derivation,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Derivation {
    name: String,
    params: Parameters,
    salt: String,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl PrivateKey {
    /// Reads a key: PKCS #8 or SEC 1 in PEM, or cosign's own form. `password` is asked for only if the key is encrypted.
    ///
    /// # Errors
    /// When the text is no such key, or the password is wrong; those of `password`.
    pub fn read<E: From<Error>>(text: &str, password: impl FnOnce() -> Result<String, E>) -> Result<Self, E> {
        if let Some(body) = ENCRYPTED.iter().find_map(|label| between(text, label)) {
            let key = decrypt(&body, password)?;
            let key = SigningKey::from_pkcs8_der(&key).map_err(|_| Error::NoPrivateKey)?;
            return Ok(Self(key));
        }
        if let Ok(key) = SigningKey::from_pkcs8_pem(text.trim()) {
            return Ok(Self(key));
        }
        // OpenSSL may write the parameters before the key.
        let key = text.find("-----BEGIN EC PRIVATE KEY-----").map(|at| text[at..].trim());
        let key = key.and_then(|key| SecretKey::from_sec1_pem(key).ok()).ok_or(Error::NoPrivateKey)?;
        Ok(Self(key.into()))
    }

    /// The signature of a text: ECDSA with SHA-256, in DER. The same key and text always give the same one.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(text);
        signature.to_der().as_bytes().to_vec()
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }
}

/// The base64 between the lines of a label in PEM, decoded.
fn between(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    BASE64_STANDARD.decode(body).ok()
}

/// Whether scrypt with these parameters needs more memory or time than a key may cost. It holds N blocks of 128 r bytes, and
/// p more of them, and mixes N of them p times (RFC 7914, section 6).
fn is_too_much(n: u64, r: u32, p: u32) -> bool {
    let (block, p) = (128 * u64::from(r), u64::from(p));
    let memory = n.saturating_add(p).saturating_mul(block);
    let work = n.saturating_mul(p).saturating_mul(block);
    memory > MAX_MEMORY || work > MAX_WORK
}

fn decrypt<E: From<Error>>(body: &[u8], password: impl FnOnce() -> Result<String, E>) -> Result<Vec<u8>, E> {
    let unknown = |problem: &str| Error::Encryption(problem.to_owned());
    let Encrypted { kdf, cipher, ciphertext } =
        serde_json::from_slice(body).map_err(|error| Error::Encryption(error.to_string()))?;
    let Parameters { n, r, p } = kdf.params;
    if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
        return Err(unknown("it is not scrypt with nacl/secretbox").into());
    }
    if !n.is_power_of_two() || n < 2 || p == 0 || r == 0 {
        return Err(unknown("scrypt has other parameters").into());
    }
    if is_too_much(n, r, p) {
        return Err(unknown("scrypt needs too much memory or time").into());
    }
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| unknown("it is not base64"));
    let (salt, nonce, sealed) = (decode(&kdf.salt)?, decode(&cipher.nonce)?, decode(&ciphertext)?);
    if nonce.len() != 24 {
        return Err(unknown("its nonce has not 24 bytes").into());
    }
    let log = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
    let parameters = scrypt::Params::new(log, r, p).map_err(|_| unknown("scrypt has other parameters"))?;
    let (password, mut key) = (password()?, [0; 32]);
    scrypt::scrypt(password.as_bytes(), &salt, &parameters, &mut key)
        .map_err(|_| unknown("scrypt has other parameters"))?;
    let secretbox = XSalsa20Poly1305::new(GenericArray::from_slice(&key));
    let opened = secretbox.decrypt(GenericArray::from_slice(&nonce), &sealed[..]);
    Ok(opened.map_err(|_| Error::Password)?)
}

/// A key to check signatures with.
#[derive(Debug, Clone)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key in PEM.
    ///
    /// # Errors
    /// [`Error::NoPublicKey`].
    pub fn read(text: &str) -> Result<Self, Error> {
        VerifyingKey::from_public_key_pem(text.trim()).map(Self).map_err(|_| Error::NoPublicKey)
    }

    /// Whether this is a signature of the text by the key: ECDSA with SHA-256, in DER.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature).is_ok_and(|signature| self.0.verify(text, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_may_cost() {
        for (n, r, p, too_much) in [
            (1 << 15, 8, 1, false), // cosign's
            (1 << 16, 8, 1, false),
            (1 << 16, 8, 16, false),
            (1 << 18, 8, 1, true),
            (1 << 16, 8, 32, true),
            (2, 1 << 20, 1, true),
            (2, 1 << 17, 16, true), // little for N, much for p
            (2, u32::MAX, u32::MAX, true),
            (1 << 63, u32::MAX, u32::MAX, true),
        ] {
            assert_eq!(is_too_much(n, r, p), too_much, "{n} {r} {p}");
        }
    }

    #[test]
    fn a_hostile_key_is_refused_before_the_password_is_asked_for() {
        let body = r#"{"kdf": {"name": "scrypt", "params": {"N": 2, "r": 131072, "p": 16}, "salt": ""},
            "cipher": {"name": "nacl/secretbox", "nonce": ""}, "ciphertext": ""}"#;
        let label = ENCRYPTED[0];
        let text =
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(body));
        let read = PrivateKey::read::<Error>(&text, || panic!("the password is not needed"));
        assert!(matches!(read, Err(Error::Encryption(why)) if why == "scrypt needs too much memory or time"));
    }
}
