//! What the operator makes of a chain, and what it leaves alone: on a real API server, where no pod ever runs.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use servicechain_crds::{Revocation, ServiceChain};
use servicechain_e2e::cluster::{await_seen, fresh_namespace};
use servicechain_e2e::operator::{
    DEADLINE, Operator, World, await_objects, chain, create, objects, settings,
};
use servicechain_keys::{Bundle, ChainId, HeldBundle, Trust};

type Objects = BTreeSet<(String, String)>;

/// A chain with its operator, in a namespace of its own.
struct Stage {
    world: World,
    client: Client,
    namespace: String,
    chain: ServiceChain,
    operator: Operator,
}

impl Stage {
    /// All objects are there, and a pass has seen them.
    async fn of(world: World, services: &[&str]) -> Self {
        let client = world.client().await.unwrap();
        let namespace = fresh_namespace(&client).await.unwrap();
        let chain = create(&client, &chain(&namespace, services).unwrap())
            .await
            .unwrap();
        let operator = start(&world, &namespace).await;
        let stage = Self {
            world,
            client,
            namespace,
            chain,
            operator,
        };
        await_objects(&stage.client, &stage.namespace, &expected(services))
            .await
            .unwrap();
        stage.pass().await;
        stage
    }

    async fn pass(&self) {
        self.operator.await_pass(&self.client, &self.chain).await.unwrap();
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What operators have written so far in this namespace.
    fn writes(&self) -> Vec<String> {
        let writes = self.world.writes().unwrap().into_iter();
        let ours = writes.filter(|write| write.namespace == self.namespace);
        ours.map(|write| format!("{} {} {}", write.verb, write.resource, write.name))
            .collect()
    }

    async fn condition(&self, kind: &str) -> (String, String, String) {
        let chain = self.api::<ServiceChain>().get("shop").await.unwrap();
        let conditions = chain.status.unwrap_or_default().conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == kind);
        let found = found.map(|condition| (condition.status, condition.reason, condition.message));
        found.unwrap_or_default()
    }

    async fn await_condition(&self, kind: &str, status: &str) -> String {
        await_seen(&format!("{kind} to be {status}"), DEADLINE, async || {
            let found = self.condition(kind).await;
            if found.0 == status {
                Ok(found.2)
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await
        .unwrap()
    }

    async fn edit(&self, patch: Value) {
        let patch = Patch::Merge(&patch);
        let api = self.api::<ServiceChain>();
        api.patch("shop", &PatchParams::default(), &patch).await.unwrap();
    }
}

async fn start(world: &World, namespace: &str) -> Operator {
    let client = world.operator_client("operator").await.unwrap();
    Operator::start(client, namespace).await.unwrap()
}

fn expected(services: &[&str]) -> Objects {
    let mut names = vec![
        ("ConfigMap", "shop-accepted".to_owned()),
        ("ConfigMap", "shop-keys".to_owned()),
        ("Secret", "shop-client-platform-demo".to_owned()),
        ("Secret", "shop-issuer-platform-config".to_owned()),
        ("ConfigMap", "shop-gateway-config".to_owned()),
    ];
    let hops = ["gateway", "issuer-platform"]
        .into_iter()
        .chain(services.iter().copied());
    for hop in hops {
        names.extend(
            [
                "Deployment",
                "Service",
                "ServiceAccount",
                "NetworkPolicy",
                "PodDisruptionBudget",
            ]
            .map(|kind| (kind, format!("shop-{hop}"))),
        );
        names.push(("Secret", format!("shop-{hop}-ack")));
    }
    for service in services {
        names.push(("ConfigMap", format!("shop-{service}-config")));
        for store in ["postgres", "redis"] {
            let name = format!("shop-{service}-{store}");
            names.extend(
                [
                    "StatefulSet",
                    "Service",
                    "ServiceAccount",
                    "NetworkPolicy",
                    "Secret",
                ]
                .map(|kind| (kind, name.clone())),
            );
        }
        names.push(("PersistentVolumeClaim", format!("shop-{service}-postgres")));
        names.push(("ConfigMap", format!("shop-{service}-postgres-config")));
    }
    names
        .into_iter()
        .map(|(kind, name)| (kind.to_owned(), name))
        .collect()
}

#[tokio::test]
async fn from_nothing_come_all_objects_and_another_pass_writes_nothing_even_after_a_restart() {
    let stage = Stage::of(World::start().await.unwrap(), &["a", "b", "c"]).await;
    let writes = stage.writes();
    stage.pass().await;
    assert_eq!(stage.writes()[writes.len()..], [] as [String; 0]);
    println!(
        "{} writes made {} objects",
        writes.len(),
        expected(&["a", "b", "c"]).len()
    );

    stage.operator.end().await;
    let again = start(&stage.world, &stage.namespace).await;
    again.await_pass(&stage.client, &stage.chain).await.unwrap();
    let after = stage.world.writes().unwrap();
    let after: Vec<_> = after
        .iter()
        .filter(|write| write.namespace == stage.namespace)
        .skip(writes.len())
        .collect();
    assert!(after.is_empty(), "{after:?}");
    again.end().await;
}

#[tokio::test]
async fn bundle_exists_before_anything_that_runs_pods_and_nothing_of_ours_holds_a_finalizer() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let writes = stage.writes();
    let first = |end: &str| writes.iter().position(|write| write.contains(end)).unwrap();
    assert!(
        first("configmaps shop-accepted") < first("shop-a-config"),
        "{writes:?}"
    );
    let bundle = first("configmaps shop-keys");
    for workload in ["deployments", "statefulsets"] {
        assert!(bundle < first(workload), "{writes:?}");
    }
    let chain = stage.api::<ServiceChain>().get("shop").await.unwrap();
    assert!(chain.finalizers().is_empty());
    let deployments = stage
        .api::<Deployment>()
        .list(&ListParams::default())
        .await
        .unwrap();
    for deployment in deployments {
        assert!(deployment.finalizers().is_empty());
        assert_eq!(deployment.owner_references()[0].uid, chain.uid().unwrap());
    }
}

#[tokio::test]
async fn drift_is_undone() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let deployments = stage.api::<Deployment>();
    let maps = stage.api::<ConfigMap>();
    let policies = stage.api::<NetworkPolicy>();

    let before = deployments.get("shop-a").await.unwrap();
    deployments
        .delete("shop-a", &DeleteParams::background())
        .await
        .unwrap();
    let scale = json!({"spec": {"replicas": 7}});
    deployments
        .patch("shop-gateway", &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .unwrap();
    let emptied = json!({"data": {"service.yaml": "{}"}});
    maps.patch("shop-a-config", &PatchParams::default(), &Patch::Merge(&emptied))
        .await
        .unwrap();
    let unlabelled = json!({"metadata": {"labels": {"servicechain.dev/chain": null}}});
    policies
        .patch("shop-a", &PatchParams::default(), &Patch::Merge(&unlabelled))
        .await
        .unwrap();

    await_seen("drift to be undone", DEADLINE, async || {
        let again = deployments.get_opt("shop-a").await.unwrap();
        let is_new = again.is_some_and(|again| again.uid() != before.uid());
        let replicas = gateway_replicas(&deployments).await;
        let map = maps.get("shop-a-config").await.unwrap().data.unwrap();
        let labels = policies.get("shop-a").await.unwrap().labels().len();
        let seen = (is_new, replicas, map["service.yaml"] != "{}", labels > 1);
        if seen == (true, Some(2), true, true)
            && objects(&stage.client, &stage.namespace, "shop").await.unwrap() == expected(&["a"])
        {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_somebody_made_immutable_is_made_anew_and_where_it_cannot_be_status_names_it() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let maps = stage.api::<ConfigMap>();
    let patch = async |name: &str, change: Value| {
        let patch = Patch::Merge(&change);
        maps.patch(name, &PatchParams::default(), &patch).await.unwrap()
    };
    let immutable = json!({"immutable": true});
    let before = patch("shop-a-config", immutable.clone()).await;
    let held = json!({"immutable": true, "metadata": {"finalizers": ["test.example/held"]}});
    patch("shop-accepted", held).await;
    stage
        .api::<Secret>()
        .patch("shop-a-ack", &PatchParams::default(), &Patch::Merge(&immutable))
        .await
        .unwrap();

    stage
        .edit(json!({"spec": {"services": cached_for("a", "7s")}}))
        .await;
    let said = stage.await_condition("Degraded", "True").await;
    assert!(
        said.contains("shop-accepted") && said.contains("finalizers"),
        "{said}"
    );
    stage.pass().await;
    let still = maps.get("shop-a-config").await.unwrap();
    assert_eq!(still.uid(), before.uid(), "what is not kept is not built");

    patch("shop-accepted", json!({"metadata": {"finalizers": null}})).await;
    stage.await_condition("Degraded", "False").await;
    let after = maps.get("shop-a-config").await.unwrap();
    assert!(after.immutable.is_none() && after.uid() != before.uid());
    assert_ne!(after.data, before.data);
    await_objects(&stage.client, &stage.namespace, &expected(&["a"]))
        .await
        .unwrap();
    stage.pass().await;
    let writes = stage.writes().len();
    stage.pass().await;
    assert_eq!(stage.writes()[writes..], [] as [String; 0]);
}

fn cached_for(service: &str, ttl: &str) -> Value {
    json!([{"name": service, "database": {"managed": {}}, "cache": {"managed": {}}, "cacheTTL": ttl}])
}

#[tokio::test]
async fn what_is_no_longer_built_goes_once_nobody_calls_it_and_data_stays() {
    let stage = Stage::of(World::start().await.unwrap(), &["a", "b"]).await;
    let only_a = chain(&stage.namespace, &["a"]).unwrap();
    stage
        .edit(json!({"spec": {"services": only_a.spec.services}}))
        .await;
    stage.pass().await;
    let found = objects(&stage.client, &stage.namespace, "shop").await.unwrap();
    assert!(
        found.contains(&("Deployment".to_owned(), "shop-b".to_owned())),
        "a may still call b"
    );

    // No pod runs here, so the test says that they did.
    let mut left = expected(&["a"]);
    for (kind, name) in [
        ("PersistentVolumeClaim", "shop-b-postgres"),
        ("Secret", "shop-b-postgres"),
    ] {
        left.insert((kind.to_owned(), name.to_owned()));
    }
    await_seen("what was of b to go", DEADLINE, async || {
        roll_out(&stage.api::<Deployment>()).await;
        let found = objects(&stage.client, &stage.namespace, "shop").await.unwrap();
        let more: Vec<_> = found.difference(&left).collect();
        if found == left {
            Ok(())
        } else {
            Err(format!("{more:?}"))
        }
    })
    .await
    .unwrap();
}

/// Says of every Deployment that its pods run.
async fn roll_out(api: &Api<Deployment>) {
    for deployment in api.list(&ListParams::default()).await.unwrap() {
        let count = deployment.spec.as_ref().unwrap().replicas;
        let status = json!({"status": {
            "observedGeneration": deployment.metadata.generation,
            "replicas": count, "updatedReplicas": count, "readyReplicas": count, "availableReplicas": count,
        }});
        let patch = Patch::Merge(&status);
        let _ = api
            .patch_status(&deployment.name_any(), &PatchParams::default(), &patch)
            .await;
    }
}

#[tokio::test]
async fn somebody_elses_object_of_the_same_name_is_not_touched_and_named_in_status() {
    let world = World::start().await.unwrap();
    let client = world.client().await.unwrap();
    let namespace = fresh_namespace(&client).await.unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &namespace);
    let foreign = json!({"metadata": {"name": "shop-a", "labels": {"team": "other"}}});
    let foreign = accounts
        .create(&PostParams::default(), &serde_json::from_value(foreign).unwrap())
        .await
        .unwrap();
    let created = create(&client, &chain(&namespace, &["a"]).unwrap())
        .await
        .unwrap();
    let operator = start(&world, &namespace).await;
    let mut all = expected(&["a"]);
    all.remove(&("ServiceAccount".to_owned(), "shop-a".to_owned()));
    await_objects(&client, &namespace, &all).await.unwrap();
    let stage = Stage {
        world,
        client,
        namespace,
        chain: created,
        operator,
    };
    let said = await_seen("the name to be in status", DEADLINE, async || {
        let chain = stage.api::<ServiceChain>().get("shop").await.unwrap();
        let conditions = chain.status.unwrap_or_default().conditions;
        let taken = conditions
            .iter()
            .find(|condition| condition.reason == "NameTaken");
        taken
            .map(|condition| condition.message.clone())
            .ok_or_else(|| format!("{conditions:?}"))
    })
    .await
    .unwrap();
    assert!(said.contains("shop-a"), "{said}");
    let now = accounts.get("shop-a").await.unwrap();
    assert_eq!(now.resource_version(), foreign.resource_version());

    accounts.delete("shop-a", &DeleteParams::default()).await.unwrap();
    await_objects(&stage.client, &stage.namespace, &expected(&["a"]))
        .await
        .unwrap();
}

#[tokio::test]
async fn where_the_accepted_spec_cannot_be_kept_nothing_is_built_and_status_names_the_object() {
    let world = World::start().await.unwrap();
    let client = world.client().await.unwrap();
    let namespace = fresh_namespace(&client).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let foreign = json!({"metadata": {"name": "shop-accepted"}, "data": {"spec.json": "theirs"}});
    let foreign = maps
        .create(&PostParams::default(), &serde_json::from_value(foreign).unwrap())
        .await
        .unwrap();
    create(&client, &chain(&namespace, &["a"]).unwrap())
        .await
        .unwrap();
    let _operator = start(&world, &namespace).await;
    let chains = Api::<ServiceChain>::namespaced(client.clone(), &namespace);
    await_seen("Ready to name it", DEADLINE, async || {
        let conditions = chains
            .get("shop")
            .await
            .unwrap()
            .status
            .unwrap_or_default()
            .conditions;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let is_named = ready.is_some_and(|ready| {
            ready.reason == "NameTaken" && ready.message.contains("ConfigMap shop-accepted")
        });
        is_named.then_some(()).ok_or_else(|| format!("{conditions:?}"))
    })
    .await
    .unwrap();
    let now = maps.get("shop-accepted").await.unwrap();
    assert_eq!(now.resource_version(), foreign.resource_version());
    let made = objects(&client, &namespace, "shop").await.unwrap();
    let only_keys: Objects = [("ConfigMap".to_owned(), "shop-keys".to_owned())].into();
    assert!(made.is_subset(&only_keys), "{made:?}");
}

async fn gateway_replicas(deployments: &Api<Deployment>) -> Option<i32> {
    deployments
        .get("shop-gateway")
        .await
        .unwrap()
        .spec
        .unwrap()
        .replicas
}

#[tokio::test]
async fn a_bad_edit_leaves_the_chain_as_it_was_even_for_an_operator_that_starts_after_it() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let refused = json!({"spec": {"gateway": {"tls": {"secretName": "shop-tls"}, "replicas": 3}}});
    stage.edit(refused).await;
    let said = stage.await_condition("Accepted", "False").await;
    assert!(said.contains("spec.gateway.tls"), "{said}");
    let deployments = stage.api::<Deployment>();
    assert_eq!(gateway_replicas(&deployments).await, Some(2));

    let Stage {
        world,
        client,
        namespace,
        chain,
        operator,
    } = stage;
    operator.end().await;
    let operator = start(&world, &namespace).await;
    deployments
        .delete("shop-gateway", &DeleteParams::background())
        .await
        .unwrap();
    await_objects(&client, &namespace, &expected(&["a"]))
        .await
        .unwrap();
    let stage = Stage {
        world,
        client,
        namespace,
        chain,
        operator,
    };
    assert_eq!(gateway_replicas(&deployments).await, Some(2));

    stage.edit(json!({"spec": {"gateway": {"tls": null}}})).await;
    stage.await_condition("Accepted", "True").await;
    stage.pass().await;
    assert_eq!(gateway_replicas(&deployments).await, Some(3));
}

/// What is published, as every verifier of the chain reads it.
async fn bundle(stage: &Stage) -> Bundle {
    let map = stage.api::<ConfigMap>().get("shop-keys").await.unwrap();
    let chain = ChainId::new(stage.chain.uid().unwrap()).unwrap();
    let trust = Trust::new(chain, stage.operator.keys.roots().anchors());
    let bytes = map.data.unwrap()["bundle.jws"].clone().into_bytes();
    HeldBundle::open(&bytes, &trust).unwrap().bundle().clone()
}

/// A revocation goes with the next bundle, and so do policy and issuers.
async fn published_after_a_revocation(stage: &Stage, subject: &str) -> Bundle {
    let revocation = json!({
        "apiVersion": "servicechain.dev/v1alpha1", "kind": "Revocation", "metadata": {"name": subject},
        "spec": {"chainRef": {"name": "shop"}, "issuer": "platform", "subject": subject},
    });
    let before = bundle(stage).await.revocations.len();
    stage
        .api::<Revocation>()
        .create(
            &PostParams::default(),
            &serde_json::from_value(revocation).unwrap(),
        )
        .await
        .unwrap();
    await_seen("the revocation in the bundle", DEADLINE, async || {
        let bundle = bundle(stage).await;
        let count = bundle.revocations.len();
        (count > before).then_some(bundle).ok_or(format!("{count}"))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_edit_that_only_the_operators_settings_refuse_changes_neither_objects_nor_keys() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let before = published_after_a_revocation(&stage, "before").await;
    stage.pass().await;
    let writes = stage.writes().len();
    // Neither an issuer in clear text nor this version of PostgreSQL; other parts and another policy beside them.
    let edit = chain(&stage.namespace, &["b"]).unwrap();
    let mut edit =
        json!({"spec": {"services": edit.spec.services, "gateway": {"routes": edit.spec.gateway.routes}}});
    edit["spec"]["services"][0]["database"]["managed"]["version"] = "18".into();
    edit["spec"]["tokenPolicy"] = json!({"clockSkew": "7s"});
    let external = json!({"name": "corporate", "external": {"url": "http://idp.example"}});
    edit["spec"]["issuers"] = json!([stage.chain.spec.issuers[0], external]);
    stage.edit(edit.clone()).await;
    let said = stage.await_condition("Accepted", "False").await;
    assert!(said.contains("https") && said.contains("PostgreSQL 18"), "{said}");
    stage.pass().await;
    let after = published_after_a_revocation(&stage, "after").await;
    assert_eq!((&after.policy, &after.issuers), (&before.policy, &before.issuers));
    let written = stage.writes()[writes..].to_vec();
    let is_of_objects = |write: &&String| {
        !["/status", "shop-keys", " events "]
            .iter()
            .any(|word| write.contains(word))
    };
    let of_objects: Vec<_> = written.iter().filter(is_of_objects).collect();
    assert!(of_objects.is_empty(), "{of_objects:?}");

    // As if what is kept had been accepted with other settings: nothing of it is built any more, and keys go on.
    let Stage {
        world,
        client,
        namespace,
        chain,
        operator,
    } = stage;
    operator.end().await;
    let mut settings = settings(&namespace);
    settings.images.postgres = [("18".to_owned(), "postgres:test".to_owned())].into();
    let again = world.operator_client("operator").await.unwrap();
    let operator = Operator::start_with(again, &namespace, settings).await.unwrap();
    let stage = Stage {
        world,
        client,
        namespace,
        chain,
        operator,
    };
    stage.pass().await;
    let last = published_after_a_revocation(&stage, "last").await;
    assert_eq!((&last.policy, &last.issuers), (&before.policy, &before.issuers));
}

#[tokio::test]
async fn a_secret_that_somebody_makes_is_seen_although_secrets_are_not_watched() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let mut issuer = serde_json::to_value(&stage.chain.spec.issuers[0]).unwrap();
    issuer["managed"]["clients"][0]["secretRef"] = json!({"name": "given"});
    stage.edit(json!({"spec": {"issuers": [issuer]}})).await;
    let missing = "the Secret given of client demo does not exist";
    let told = async |is_told: bool| {
        await_seen(missing, DEADLINE, async || {
            let message = stage.condition("IssuersReady").await.2;
            (message.contains(missing) == is_told)
                .then_some(())
                .ok_or(message)
        })
        .await
        .unwrap();
    };
    told(true).await;
    stage.pass().await;
    let given: Secret = serde_json::from_value(json!({
        "metadata": {"name": "given"}, "stringData": {"clientID": "demo", "clientSecret": "a word of thirty-two letters and more"},
    }))
    .unwrap();
    let secrets = stage.api::<Secret>();
    secrets.create(&PostParams::default(), &given).await.unwrap();
    told(false).await;
}

#[tokio::test]
async fn a_namespace_that_is_being_deleted_is_not_fought_for_and_the_operator_goes_on() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    let namespaces = Api::<Namespace>::all(stage.client.clone());
    // Nobody finishes it here, so it is being deleted for as long as the test looks.
    namespaces
        .delete(&stage.namespace, &DeleteParams::default())
        .await
        .unwrap();
    stage
        .api::<Deployment>()
        .delete("shop-a", &DeleteParams::background())
        .await
        .unwrap();
    let before = stage.operator.metrics.passes();
    await_seen("passes over the chain", DEADLINE, async || {
        let refused = stage.world.writes().unwrap();
        let refused = refused
            .iter()
            .filter(|write| write.namespace == stage.namespace && write.code == 403)
            .count();
        let done = stage.operator.metrics.passes() - before;
        if refused > 0 && done > 0 {
            Ok(())
        } else {
            Err(format!("{refused} writes refused, {done} passes"))
        }
    })
    .await
    .unwrap();
    stage
        .api::<ServiceChain>()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    let left = stage.api::<ServiceChain>().get_opt("shop").await.unwrap();
    assert!(left.is_none(), "nothing of ours holds it: {left:?}");
}

#[tokio::test]
async fn while_paused_nothing_is_written_but_status() {
    let stage = Stage::of(World::start().await.unwrap(), &["a"]).await;
    stage.edit(json!({"spec": {"paused": true}})).await;
    stage.pass().await;
    let before = stage.writes().len();
    let edit = json!({"spec": {"gateway": {"replicas": 5}, "tokenPolicy": {"clockSkew": "7s"}}});
    stage.edit(edit).await;
    stage
        .api::<Deployment>()
        .delete("shop-a", &DeleteParams::background())
        .await
        .unwrap();
    stage.pass().await;
    let written = stage.writes()[before..].to_vec();
    assert!(
        written.iter().all(|write| write.contains("servicechains/status")),
        "{written:?}"
    );
    // Keys go on, and by what was accepted before.
    let paused = published_after_a_revocation(&stage, "meanwhile").await;

    stage.edit(json!({"spec": {"paused": false}})).await;
    await_objects(&stage.client, &stage.namespace, &expected(&["a"]))
        .await
        .unwrap();
    await_seen("the new policy to be published", DEADLINE, async || {
        let skew = bundle(&stage).await.policy.clock_skew;
        let is_new = skew == Duration::from_secs(7) && paused.policy.clock_skew != skew;
        is_new.then_some(()).ok_or(format!("{skew:?}"))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_deleted_chain_leaves_its_volumes_and_what_opens_them_and_nothing_else() {
    let stage = Stage::of(World::start_with_garbage_collector().await.unwrap(), &["a"]).await;
    let secrets = stage.api::<Secret>();
    let password = secrets.get("shop-a-postgres").await.unwrap();
    stage
        .api::<ServiceChain>()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    let kept = [
        ("PersistentVolumeClaim", "shop-a-postgres"),
        ("Secret", "shop-a-postgres"),
    ];
    let kept: Objects = kept.map(|(kind, name)| (kind.to_owned(), name.to_owned())).into();
    await_objects(&stage.client, &stage.namespace, &kept)
        .await
        .unwrap();

    // Made again, it finds its data, and what opens it.
    let again = create(&stage.client, &chain(&stage.namespace, &["a"]).unwrap())
        .await
        .unwrap();
    await_objects(&stage.client, &stage.namespace, &expected(&["a"]))
        .await
        .unwrap();
    stage.operator.await_pass(&stage.client, &again).await.unwrap();
    assert_eq!(secrets.get("shop-a-postgres").await.unwrap().data, password.data);
    let claims = stage.api::<PersistentVolumeClaim>();
    assert!(
        claims
            .get("shop-a-postgres")
            .await
            .unwrap()
            .owner_references()
            .is_empty()
    );
}
