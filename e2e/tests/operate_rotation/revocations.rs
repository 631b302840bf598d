//! Revocations of what was in use just before, and what each verifier makes of it afterwards.

use std::sync::Arc;

use serde_json::Value;
use servicechain_e2e::cluster::await_seen;
use servicechain_e2e::pod;
use servicechain_e2e::shop::NAME;
use servicechain_e2e::token_load::{ITEM, Token};

use crate::soak::{SOON, Soak, WITHIN};

impl Soak {
    pub(crate) async fn revoke_a_subject(&mut self) {
        let token = Token::fetch(self.shop.gateway, &self.mallory).await.unwrap();
        self.revoke(
            "a subject",
            &["--issuer", "platform", "--subject", "mallory"],
            &token,
        )
        .await;
        // What she is given from then on is good.
        await_seen("mallory to be let in with a new token", SOON, async || {
            let token = Token::fetch(self.shop.gateway, &self.mallory).await;
            let token = token.map_err(|error| format!("{error:#}"))?;
            let answer = self.shop.get(ITEM, Some(&token.text)).await;
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }

    pub(crate) async fn revoke_a_session(&mut self) {
        let [token, other] = ["s-1", "s-2"].map(|session| self.partner.token("pat", session));
        self.use_before(&other).await;
        self.revoke("a session", &["--issuer", "partner", "--session", "s-1"], &token)
            .await;
    }

    pub(crate) async fn revoke_a_token(&mut self) {
        let guest = self.shop.credentials("guest").await.unwrap();
        let token = Token::fetch(self.shop.gateway, &guest).await.unwrap();
        let id = token.claim("jti").unwrap();
        self.revoke("a token", &["--issuer", "platform", "--token-id", &id], &token)
            .await;
    }

    async fn revoke(&mut self, what: &str, named: &[&str], token: &Arc<Token>) {
        self.use_before(token).await;
        let seconds = self.order_revocation(named, token).await;
        self.assert_refused_everywhere(token).await;
        self.progress
            .say(format_args!("{what} is revoked: {seconds:.2} s"));
        self.revocations.push((what.to_owned(), seconds));
        self.say_mishaps();
    }

    /// So that every hop remembers a good verdict.
    pub(crate) async fn use_before(&self, token: &Arc<Token>) {
        pod::put_items(&self.shop, token).await.unwrap();
        self.load.take_up(token);
        let answers = pod::statuses(&self.shop, token).await.unwrap();
        let all_let_in = answers.iter().all(|(_, status)| *status == 200);
        assert!(all_let_in, "before the revocation: {answers:?}");
    }

    pub(crate) async fn order_revocation(&self, named: &[&str], token: &Token) -> f64 {
        token.is_ordered_revoked();
        let namespace = &self.shop.namespace;
        let revoke = [
            "revoke",
            NAME,
            "--namespace",
            namespace,
            "--timeout",
            WITHIN,
            "--output",
            "json",
        ];
        let said = self
            .shop
            .cluster
            .servicechain(revoke.iter().chain(named).copied())
            .await;
        token.is_answered_revoked();
        let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
        said["seconds"].as_f64().unwrap()
    }

    /// Each hop by itself, as if the one before it had let the token in.
    pub(crate) async fn assert_refused_everywhere(&mut self, token: &Token) {
        let of_bystander = pod::statuses(&self.shop, &self.bystander).await.unwrap();
        let all_let_in = of_bystander.iter().all(|(_, status)| *status == 200);
        assert!(all_let_in, "the bystander: {of_bystander:?}");
        let answers = pod::statuses(&self.shop, token).await.unwrap();
        let accepted = answers.iter().filter(|(_, status)| *status == 200).count();
        let refused = answers.iter().filter(|(_, status)| *status == 401).count();
        assert_eq!(accepted + refused, answers.len(), "{answers:?}");
        self.accepted_at_a_hop += accepted;
    }
}
