//! The cluster that a command asks: which one it is, who asks, and every question under one timeout. What it says no
//! with becomes a sentence in `refusal`. It must not know what is asked for.

pub(crate) mod port_forward;
mod refusal;

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource, ResourceExt as _};
use servicechain_crds::ServiceChain;

use crate::outcome::Failure;
pub(crate) use refusal::{Question, Unanswered};

/// An API server that cannot be connected to within this time is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The longest an API server may take for one answer, its client's repetitions included.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Chains that are named to somebody who looks for another.
const MOST_NAMES: u32 = 20;

/// Where the chain is.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct Place {
    /// Namespace of the chain; default: the one of the kubeconfig's context
    #[arg(short, long, value_name = "NAMESPACE", requires = "chain")]
    namespace: Option<String>,
    /// Context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME", requires = "chain")]
    context: Option<String>,
    /// kubeconfig to use; default: $KUBECONFIG, else ~/.kube/config, else the service account of the pod it runs in
    #[arg(long, value_name = "FILE", requires = "chain")]
    kubeconfig: Option<PathBuf>,
}

/// An API server, and the namespace that is looked at.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// As the kubeconfig spells it.
    server: String,
    pub namespace: String,
}

impl Cluster {
    /// Asks nothing yet.
    pub(crate) async fn find(place: &Place) -> Result<Self, Failure> {
        let mut config = config(place).await?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = place.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| {
            Failure::BadInput(format!(
                "the cluster at {server} cannot be used: {}",
                refusal::cause(&error)
            ))
        })?;
        Ok(Self {
            client,
            server,
            namespace,
        })
    }

    /// Objects of one kind in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn ask<T>(
        &self,
        question: Question<'_>,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Unanswered> {
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(refusal::explain(&error, question, &self.server, &self.namespace)),
            Err(_) => Err(refusal::silent(&self.server, ANSWER_WITHIN)),
        }
    }

    /// Whether whoever asks may ask this, before it is asked.
    pub(crate) async fn require(&self, question: Question<'_>) -> Result<(), Unanswered> {
        let (resource, group) = question
            .resource
            .split_once('.')
            .unwrap_or((question.resource, ""));
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            namespace: Some(self.namespace.clone()),
            resource: Some(resource.to_owned()),
            verb: Some(question.verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let asked = Question {
            verb: "create",
            resource: "selfsubjectaccessreviews.authorization.k8s.io",
        };
        let api = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let answer = self
            .ask(asked, api.create(&PostParams::default(), &review))
            .await?;
        if answer.status.is_some_and(|status| status.allowed) {
            Ok(())
        } else {
            Err(refusal::forbidden("you", question, &self.namespace))
        }
    }

    /// The chain of this name as it is now.
    pub(crate) async fn chain(&self, name: &str) -> Result<ServiceChain, Unanswered> {
        let question = Question {
            verb: "get",
            resource: "servicechains.servicechain.dev",
        };
        self.ask(question, self.api::<ServiceChain>().get(name)).await
    }

    /// The chain of this name, or what there is instead.
    pub(crate) async fn chain_or_others(&self, name: &str) -> Result<ServiceChain, Failure> {
        match self.chain(name).await {
            Ok(chain) => Ok(chain),
            Err(Unanswered::NotFound(_)) => Err(self.no_such_chain(name).await),
            Err(other) => Err(other.into()),
        }
    }

    /// Why there is no such chain: the kind is not installed, or others are there.
    async fn no_such_chain(&self, name: &str) -> Failure {
        let question = Question {
            verb: "list",
            resource: "servicechains.servicechain.dev",
        };
        let parameters = ListParams::default().limit(MOST_NAMES);
        let everywhere = Api::<ServiceChain>::all(self.client.clone());
        let mut found = self.ask(question, everywhere.list_metadata(&parameters)).await;
        if matches!(found, Err(Unanswered::Forbidden(_))) {
            let here = self.api::<ServiceChain>();
            found = self.ask(question, here.list_metadata(&parameters)).await;
        }
        match found {
            Ok(found) => {
                let chains = found
                    .iter()
                    .map(|chain| (chain.namespace().unwrap_or_default(), chain.name_any()));
                Failure::NoSuchChain(refusal::no_such_chain(
                    name,
                    &self.namespace,
                    &chains.collect::<Vec<_>>(),
                ))
            }
            Err(Unanswered::NotFound(_)) => {
                Failure::Failed(anyhow::anyhow!(refusal::not_installed(&self.server)))
            }
            // Who may not look at others is told the one thing that is known.
            Err(_) => Failure::NoSuchChain(format!(
                "there is no chain {name:?} in namespace {}",
                self.namespace
            )),
        }
    }
}

/// A kubeconfig if there is one, else what a pod is given.
async fn config(place: &Place) -> Result<Config, Failure> {
    let read = match &place.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let is_absent = match &read {
        Err(KubeconfigError::FindPath) => true,
        Err(KubeconfigError::ReadConfig(error, _)) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    };
    if is_absent && place.kubeconfig.is_none() && place.context.is_none() {
        return Config::incluster().map_err(|_| Failure::BadInput(refusal::NO_KUBECONFIG.to_owned()));
    }
    let bad = |error: KubeconfigError| {
        Failure::BadInput(format!(
            "the kubeconfig cannot be used: {}; name another with --kubeconfig",
            refusal::cause(&error)
        ))
    };
    let kubeconfig = read.map_err(bad)?;
    if let Some(wanted) = &place.context
        && !kubeconfig.contexts.iter().any(|context| &context.name == wanted)
    {
        let names: Vec<&str> = kubeconfig
            .contexts
            .iter()
            .map(|context| context.name.as_str())
            .collect();
        return Err(Failure::BadInput(format!(
            "the kubeconfig has no context {wanted:?}; {}",
            refusal::there_is(&names)
        )));
    }
    let options = KubeConfigOptions {
        context: place.context.clone(),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(bad)
}
