//! What the issuer counts beside requests: tokens issued, and refusals by their error.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use servicechain_runtime::metrics::Metrics;

#[derive(Clone, Debug)]
pub(crate) struct TokenMetrics(Family<[(&'static str, &'static str); 1], Counter>);

impl TokenMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let answers = Family::default();
        let registry = metrics.registry().sub_registry_with_prefix("servicechain_issuer");
        registry.register("token_requests", "Token requests, by outcome", answers.clone());
        Self(answers)
    }

    /// `issued`, or the error of RFC 6749.
    pub(crate) fn answered(&self, outcome: &'static str) {
        self.0.get_or_create(&[("outcome", outcome)]).inc();
    }
}
