//! Signatures by keys of the curve P-521, which ring does not check. Company and government authorities use them.

use std::sync::OnceLock;

use p521::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
use rustls::{
    SignatureScheme,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The size of a number of the field, in bytes.
const FIELD: usize = 66;

/// ECDSA with P-521 and a hash (RFC 5758, section 3.2).
#[derive(Debug)]
struct P521 {
    id: AlgorithmIdentifier,
    hash: fn(&[u8]) -> Vec<u8>,
}

static WITH_SHA512: P521 =
    P521 { id: alg_id::ECDSA_SHA512, hash: |message| Sha512::digest(message).to_vec() };
static WITH_SHA384: P521 =
    P521 { id: alg_id::ECDSA_SHA384, hash: |message| Sha384::digest(message).to_vec() };
static WITH_SHA256: P521 =
    P521 { id: alg_id::ECDSA_SHA256, hash: |message| Sha256::digest(message).to_vec() };

/// What TLS calls `ecdsa_secp521r1_sha512` (RFC 8446, section 4.2.3).
static FOR_TLS: &[&dyn SignatureVerificationAlgorithm] = &[&WITH_SHA512];

impl SignatureVerificationAlgorithm for P521 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        // As a number of the field's size: p521 takes no hash of less than half of it, such as SHA-256, the default of
        // `openssl x509`.
        let hash = (self.hash)(message);
        let mut number = [0; FIELD];
        let place =
            FIELD.checked_sub(hash.len()).and_then(|at| number.get_mut(at..)).ok_or(InvalidSignature)?;
        place.copy_from_slice(&hash);
        key.verify_prehash(&number, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.id
    }
}

/// ring's algorithms, and these.
pub(crate) fn and_ring() -> WebPkiSupportedAlgorithms {
    type Algorithms = [&'static dyn SignatureVerificationAlgorithm];
    static ALL: OnceLock<Vec<&'static dyn SignatureVerificationAlgorithm>> = OnceLock::new();
    static MAPPING: OnceLock<Vec<(SignatureScheme, &'static Algorithms)>> = OnceLock::new();
    let ring = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let own: [&'static dyn SignatureVerificationAlgorithm; 3] = [&WITH_SHA512, &WITH_SHA384, &WITH_SHA256];
    let scheme = (SignatureScheme::ECDSA_NISTP521_SHA512, FOR_TLS);
    WebPkiSupportedAlgorithms {
        all: ALL.get_or_init(|| ring.all.iter().copied().chain(own).collect()),
        mapping: MAPPING.get_or_init(|| ring.mapping.iter().copied().chain([scheme]).collect()),
    }
}
