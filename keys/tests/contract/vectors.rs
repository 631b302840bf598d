//! Bytes that must keep meaning what they mean: published examples, and a bundle signed once.

use serde::Deserialize;
use serde_json::{Map, Value};
use servicechain_keys::{
    AckKey, Algorithm, ChainId, CompactJws, Digest, Generation, HeldBundle, Jwk, Label, Mac, Nonce, PodId,
    RootSecret, Trust, TrustAnchor, VerificationKey, Workload,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    jws: Vec<SignedExample>,
    thumbprints: Vec<ThumbprintExample>,
    bundle: BundleExample,
    mac: MacExample,
}

#[derive(Deserialize)]
struct SignedExample {
    source: String,
    jwk: Map<String, Value>,
    jws: String,
    payload: String,
}

#[derive(Deserialize)]
struct ThumbprintExample {
    source: String,
    jwk: Map<String, Value>,
    thumbprint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleExample {
    chain: ChainId,
    trust_anchor: TrustAnchor,
    trust_anchor_kid: String,
    generation: Generation,
    bytes: String,
    digest: Digest,
    content: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MacExample {
    root_secret: String,
    chain: ChainId,
    workload: Workload,
    ack_key: String,
    nonce: Nonce,
    pod: PodId,
    body: String,
    answer: String,
    knock: String,
    knock_answer: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors.json")).unwrap()
}

#[test]
fn published_signatures_verify() {
    for example in vectors().jws {
        let key = VerificationKey::new(&Jwk::parse(&example.jwk, &Algorithm::ALL).unwrap());
        let jws = CompactJws::parse(&example.jws, 8192).unwrap();
        assert_eq!(
            key.verify(jws.signing_input, &jws.signature),
            Ok(()),
            "{}",
            example.source
        );
        assert_eq!(jws.payload, example.payload.as_bytes(), "{}", example.source);
    }
}

#[test]
fn published_thumbprints_are_computed() {
    for example in vectors().thumbprints {
        let jwk = Jwk::parse(&example.jwk, &[Algorithm::RS256, Algorithm::EdDSA]).unwrap();
        assert_eq!(
            jwk.thumbprint().to_string(),
            example.thumbprint,
            "{}",
            example.source
        );
    }
}

#[test]
fn bundle_signed_long_ago_still_opens() {
    let BundleExample {
        chain,
        trust_anchor,
        trust_anchor_kid,
        generation,
        bytes,
        digest,
        content,
    } = vectors().bundle;
    assert_eq!(trust_anchor.kid(), trust_anchor_kid);
    let held = HeldBundle::open(bytes.as_bytes(), &Trust::new(chain, vec![trust_anchor])).unwrap();
    assert_eq!(held.generation(), generation);
    assert_eq!(held.digest(), digest);
    assert_eq!(serde_json::to_value(held.bundle()).unwrap(), content);
}

#[test]
fn acknowledgement_codes_stay_the_same() {
    let example = vectors().mac;
    let root: RootSecret = example.root_secret.parse().unwrap();
    let key = root.ack_key(&example.chain, &example.workload);
    assert_eq!(*key.to_text(), example.ack_key);
    let key: AckKey = example.ack_key.parse().unwrap();
    let mac = |label| -> Mac { key.mac(label, &example.nonce, &example.pod, example.body.as_bytes()) };
    assert_eq!(mac(Label::Answer).to_string(), example.answer);
    assert_eq!(mac(Label::Knock).to_string(), example.knock);
    assert_eq!(mac(Label::KnockAnswer).to_string(), example.knock_answer);
}
