//! The setting type for secrets: they are never printed, and refused if they can be guessed.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::ConfigError;

/// Fewest bytes of a secret that signs: as many as the hash of HS256 has
/// (RFC 7518, 3.2).
const BYTES_MIN: usize = 32;
/// Least entropy of such a secret, in bits, estimated from how often each of
/// its bytes occurs. 32 random hexadecimal digits have about 115, random
/// base64 or words more, one repeated character has none.
const ENTROPY_BITS_MIN: f64 = 80.0;

/// A text that is never printed, and whose memory is overwritten when it is
/// dropped.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text itself, for its one use.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Refuses a secret to sign with that is too short, or has too few
    /// different characters to be random. Empty means that it is not set.
    pub(super) fn check_can_sign(&self, setting: &'static str) -> Result<(), ConfigError> {
        let wrong = |message: String| Err(ConfigError::OutOfBounds { setting, message });
        let bytes = self.expose().as_bytes();
        if (1..BYTES_MIN).contains(&bytes.len()) {
            return wrong(format!("must be at least {BYTES_MIN} bytes; it has {}", bytes.len()));
        }
        if !bytes.is_empty() && entropy_bits(bytes) < ENTROPY_BITS_MIN {
            return wrong(
                "repeats too few characters to be secret: make one with `openssl rand -base64 32`".to_owned(),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.expose().is_empty() { "\"\"" } else { "\"…\"" })
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

/// Shannon's entropy of the bytes' frequencies, times their number. Counts are
/// also those of the differences between neighbours, so that "abcdefgh…" does
/// not pass for random.
fn entropy_bits(bytes: &[u8]) -> f64 {
    let steps: Vec<u8> = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    frequency_entropy(bytes).min(frequency_entropy(&steps))
}

#[allow(clippy::cast_precision_loss, reason = "lengths of settings")]
fn frequency_entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_usize; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let all = bytes.len() as f64;
    counts.iter().filter(|count| **count > 0).map(|count| *count as f64 * (all / *count as f64).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert!(!format!("{:?}", Secret::new("hunter2".to_owned())).contains("hunter2"));
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let check = |secret: &str, is_taken: bool| {
            let checked = Secret::new(secret.to_owned()).check_can_sign("cursor_secret");
            assert_eq!(checked.is_ok(), is_taken, "{secret:?}");
        };
        check("", true);
        check("too short", false);
        check(&" ".repeat(32), false);
        check(&"x".repeat(1_000), false);
        check(&"ab".repeat(32), false);
        check("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabcdef", false);
        check("abcdefghijklmnopqrstuvwxyz0123456789", false);
        check("correct horse battery staple and more", true);
    }

    #[test]
    fn random_secrets_are_taken() {
        for _ in 0..1_000 {
            let hex = crate::secret::hex(&rand::random::<[u8; 16]>());
            assert!(Secret::new(hex.clone()).check_can_sign("cursor_secret").is_ok(), "{hex}");
        }
    }
}
