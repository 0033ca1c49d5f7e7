//! Proof of the cluster's secret: a keyed hash over both hellos, which hold a nonce of each side. It shows the other side
//! nothing of the secret but that both have the same, and cannot be used for another connection or the other direction.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// A secret is not shorter, bytes: whoever dials a node can try guesses against its proof without further traffic.
pub const SECRET_BYTES_MIN: usize = 16;
/// Nor longer.
pub const SECRET_BYTES_MAX: usize = 4096;

const LABEL: &[u8] = b"pelton peer proof 1";
/// What stands for a secret where there is none.
const NO_SECRET: &[u8] = b"";

/// A number used for one connection.
pub type Nonce = [u8; NONCE_BYTES];

/// Which side of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// Dialed.
    Dialer = 1,
    /// Was dialed.
    Acceptor = 2,
}

impl Role {
    /// The other one.
    pub fn other(self) -> Role {
        match self {
            Role::Dialer => Role::Acceptor,
            Role::Acceptor => Role::Dialer,
        }
    }
}

/// The secret all nodes of a cluster share. Not shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "no secret" } else { "a secret" })
    }
}

impl Secret {
    /// From the contents of a file: white space at both ends is none of it, so that an editor's last newline makes no difference.
    /// The error says what is wrong, not what was read.
    pub fn from_file(contents: &[u8]) -> Result<Secret, String> {
        let secret = contents.trim_ascii();
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(format!(
                "it holds {} bytes, a cluster secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}",
                secret.len()
            ));
        }
        Ok(Secret(secret.into()))
    }

    /// For a cluster without one. It is proven to as if it were a secret, so that a node that has one notices.
    pub fn none() -> Secret {
        Secret(NO_SECRET.into())
    }

    fn hash(&self, prover: Role, dialer: &[u8], acceptor: &[u8]) -> Hmac<Sha256> {
        let mut hash = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        hash.update(LABEL);
        hash.update(&[prover as u8]);
        for hello in [dialer, acceptor] {
            hash.update(&(hello.len() as u32).to_le_bytes());
            hash.update(hello);
        }
        hash
    }

    /// What `prover` says after these hellos.
    pub fn prove(&self, prover: Role, dialer: &[u8], acceptor: &[u8]) -> [u8; PROOF_BYTES] {
        self.hash(prover, dialer, acceptor).finalize().into_bytes().into()
    }

    /// Whether it is what the prover had to say. Takes as long for a wrong one.
    pub fn accepts(&self, proof: &[u8], prover: Role, dialer: &[u8], acceptor: &[u8]) -> bool {
        self.hash(prover, dialer, acceptor).verify_slice(proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_one_secret_one_side_and_these_hellos() {
        let secret = Secret::from_file(b" 0123456789abcdef\n").unwrap();
        let proof = secret.prove(Role::Dialer, b"one", b"two");
        let same = Secret::from_file(b"0123456789abcdef").unwrap();
        assert!(same.accepts(&proof, Role::Dialer, b"one", b"two"), "white space around it is nothing");
        assert!(!same.accepts(&proof, Role::Acceptor, b"one", b"two"), "no echo");
        assert!(!same.accepts(&proof, Role::Dialer, b"onet", b"wo"), "lengths count");
        assert!(!same.accepts(&proof, Role::Dialer, b"one", b"twO"));
        assert!(!same.accepts(&proof[..31], Role::Dialer, b"one", b"two"));
        assert!(!same.accepts(&[], Role::Dialer, b"one", b"two"));
        assert!(!Secret::none().accepts(&proof, Role::Dialer, b"one", b"two"));
        let none = Secret::none().prove(Role::Dialer, b"one", b"two");
        assert!(Secret::none().accepts(&none, Role::Dialer, b"one", b"two"));
    }

    /// RFC 4231, test case 2, with the parts in the places the label and the hellos have here.
    #[test]
    fn the_hash_is_hmac_sha256() {
        let mut hash = <Hmac<Sha256> as Mac>::new_from_slice(b"Jefe").unwrap();
        hash.update(b"what do ya want ");
        hash.update(b"for nothing?");
        let expected = [
            0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
            0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43,
        ];
        assert_eq!(<[u8; 32]>::from(hash.finalize().into_bytes()), expected);
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        let error = Secret::from_file(b"short secret\n").unwrap_err();
        assert!(error.contains("12 bytes") && !error.contains("short"), "{error}");
        assert!(Secret::from_file(&[b'a'; SECRET_BYTES_MAX + 1]).is_err());
        let secret = Secret::from_file(b"correct horse battery").unwrap();
        assert_eq!(format!("{secret:?} {:?}", Secret::none()), "a secret no secret");
    }
}
