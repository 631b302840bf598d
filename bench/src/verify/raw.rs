//! The signature check alone, by the same library and with the key parsed before: what a verification cannot do without.

use anyhow::{Context, Result, bail};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use servicechain_keys::{Algorithm, SigningKey};

pub(super) struct SignatureCheck {
    key: ParsedPublicKey,
    signing_input: Vec<u8>,
    signature: Vec<u8>,
}

impl SignatureCheck {
    pub(super) fn new(key: &SigningKey, token: &str) -> Result<Self> {
        let pkcs8 = key.to_pkcs8().context("the key cannot be written")?;
        let rejected = |error| anyhow::anyhow!("the key is not read again: {error}");
        let parsed = match key.algorithm() {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::from_pkcs8(&pkcs8).map_err(rejected)?;
                ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
            }
            Algorithm::ES256 => {
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map_err(rejected)?;
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key())
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(rejected)?;
                ParsedPublicKey::new(&ED25519, pair.public_key())
            }
            other => bail!("{} is not measured", other.name()),
        };
        let (signing_input, signature) = token.rsplit_once('.').context("a token has dots")?;
        Ok(Self {
            key: parsed.map_err(rejected)?,
            signing_input: signing_input.as_bytes().to_vec(),
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature)?,
        })
    }

    pub(super) fn holds(&self) -> bool {
        self.key.verify_sig(&self.signing_input, &self.signature).is_ok()
    }
}
