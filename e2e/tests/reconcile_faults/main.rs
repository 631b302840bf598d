//! Every write of an operator may go wrong: refused before it is done, done without an answer, in conflict, or the last
//! thing that the operator did. Whatever happens, the same objects come to be. The API server is real.
#![cfg(test)]

mod faults;

use std::collections::BTreeSet;

use faults::{Fault, Faults};
use kube::Client;
use kube::client::ClientBuilder;
use servicechain_crds::ServiceChain;
use servicechain_e2e::cluster::fresh_namespace;
use servicechain_e2e::operator::{Operator, World, await_objects, chain, create, objects};

type Objects = BTreeSet<(String, String)>;

/// A chain in a namespace of its own, and what an operator's client does wrong in it.
struct Trial<'a> {
    world: &'a World,
    client: Client,
    namespace: String,
    chain: ServiceChain,
    faults: Faults,
}

impl<'a> Trial<'a> {
    async fn new(world: &'a World, fault: Option<Fault>) -> Self {
        let client = world.client().await.unwrap();
        let namespace = fresh_namespace(&client).await.unwrap();
        let chain = create(&client, &chain(&namespace, &["a"]).unwrap())
            .await
            .unwrap();
        Self {
            world,
            client,
            namespace,
            chain,
            faults: Faults::new(fault),
        }
    }

    async fn start(&self) -> anyhow::Result<Operator> {
        let config = self.world.operator_config("faulty").await?;
        let client = ClientBuilder::try_from(config)?.with_layer(&self.faults).build();
        Operator::start(client, &self.namespace).await
    }

    /// Runs operators, each until its client says that it crashed, until all objects are there.
    async fn converge(&self, expected: &Objects) {
        loop {
            tokio::select! {
                () = self.faults.crashed() => {}
                operator = self.start() => {
                    // A root of trust that was not made is tried again by the process.
                    let Ok(operator) = operator else { continue };
                    tokio::select! {
                        () = self.faults.crashed() => operator.crash().await,
                        all = self.all_is_there(&operator, expected) => {
                            all.unwrap();
                            operator.end().await;
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn all_is_there(&self, operator: &Operator, expected: &Objects) -> anyhow::Result<()> {
        await_objects(&self.client, &self.namespace, expected).await?;
        operator.await_pass(&self.client, &self.chain).await
    }

    /// An operator to which nothing happens finds nothing to do.
    async fn stands_still(&self) {
        let client = self.world.operator_client("second").await.unwrap();
        let operator = Operator::start(client, &self.namespace).await.unwrap();
        operator.await_pass(&self.client, &self.chain).await.unwrap();
        operator.end().await;
        let writes = self.world.writes().unwrap();
        let writes: Vec<_> = writes
            .iter()
            .filter(|write| write.pod == "second" && write.namespace == self.namespace)
            .collect();
        assert!(writes.is_empty(), "{writes:?}");
    }
}

#[tokio::test]
async fn whatever_goes_wrong_with_whichever_write_the_same_objects_come_to_be() {
    let world = World::start().await.unwrap();
    let undisturbed = Trial::new(&world, None).await;
    let operator = undisturbed.start().await.unwrap();
    // The bundle is the last thing that others wait for, and Deployments come last.
    let expected = until_it_stands(&undisturbed, &operator).await;
    operator.end().await;
    let mut points = 0;
    for fault in [Fault::Before, Fault::After, Fault::Conflict, Fault::Crash] {
        let trial = Trial::new(&world, Some(fault)).await;
        trial.converge(&expected).await;
        trial.stands_still().await;
        let hit = trial.faults.hit();
        println!("{fault:?}: {} writes", hit.len());
        // As many kinds of writes as an operator makes that meets no fault.
        assert!(hit.len() >= expected.len(), "{hit:?}");
        points += hit.len();
    }
    println!("fault points: {points} tried, {points} converged");
}

async fn until_it_stands(trial: &Trial<'_>, operator: &Operator) -> Objects {
    let gateway = ("Deployment".to_owned(), "shop-gateway".to_owned());
    let seen = servicechain_e2e::cluster::await_seen(
        "the gateway",
        servicechain_e2e::operator::DEADLINE,
        async || {
            let found = objects(&trial.client, &trial.namespace, "shop")
                .await
                .map_err(|error| format!("{error:#}"))?;
            if found.contains(&gateway) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    );
    seen.await.unwrap();
    operator.await_pass(&trial.client, &trial.chain).await.unwrap();
    objects(&trial.client, &trial.namespace, "shop").await.unwrap()
}
