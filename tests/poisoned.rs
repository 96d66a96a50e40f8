//! One of five clients is malicious: what that costs the others, and what robust mixing leaves of the damage
//! (docs/robust.md shows more seeds). `cargo test --release -p fellrec --test poisoned -- --nocapture` prints the table.

mod common;

use std::fmt;

use common::federation::{preset, ruled, undisturbed};
use fellrec::config::Config;
use fellrec::federation::mixing::{
    MixingError, MixingInput, MixingRule, MixingWeights, rule_of_run,
};
use fellrec::history::{EventKind, RunEvent};
use fellrec::ids::ClientId;
use fellrec::model::slice::{NamedTensor, Part};
use tch::no_grad;

const MALICIOUS: ClientId = ClientId(2);

/// Share of the undisturbed NDCG@10 that the honest clients keep under a mixing that withstands an attack.
const KEPT: f64 = 0.95;

/// What the malicious client sends instead of its update: so many times it.
#[derive(Clone, Copy, Debug)]
struct Attack(f64);

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "update x {}", self.0)
    }
}

/// The configured rule, over a round in which one client sent something else than it trained.
struct Poisoned {
    rule: Box<dyn MixingRule>,
    attack: Attack,
}

impl MixingRule for Poisoned {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn is_personal(&self) -> bool {
        self.rule.is_personal()
    }

    /// Overwrites what the aggregator holds of the client, which is a copy: the client itself goes on honestly, so
    /// that its attack is as good in every round.
    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError> {
        let clients = input.cohort.clients();
        let position =
            clients.iter().position(|client| *client == MALICIOUS).expect("all take part");
        let (theta, start) = (input.cohort.thetas()[position], input.cohort.starts()?[position]);
        let spoil = |(sent, start): (&NamedTensor, &NamedTensor)| {
            let poison = &start.tensor + (&sent.tensor - &start.tensor) * self.attack.0;
            sent.tensor.shallow_clone().copy_(&poison);
        };
        no_grad(|| {
            for part in Part::ALL {
                theta.part(part).tensors.iter().zip(&start.part(part).tensors).for_each(spoil);
            }
        });
        self.rule.weights(input)
    }
}

/// Mean NDCG@10 of the honest clients in the test.
fn honest(events: &[RunEvent]) -> f64 {
    let finished = events.iter().find_map(|event| match &event.kind {
        EventKind::RunFinished { test, .. } => Some(test),
        _ => None,
    });
    let test = finished.expect("the run finished");
    let honest: Vec<f64> = test
        .iter()
        .filter(|(client, _)| **client != MALICIOUS)
        .map(|(_, result)| result.after.ndcg[&10])
        .collect();
    honest.iter().sum::<f64>() / honest.len() as f64
}

/// One of five clients that are alike, for one kind of mixing.
struct Siege {
    rule: &'static str,
    /// NDCG@10 of the honest clients without any attack.
    calm: f64,
}

impl Siege {
    fn new(rule: &'static str) -> Self {
        let calm = honest(&undisturbed(Self::config(rule, "none")).events);
        println!("| {rule} | none | {calm:.4} |||||");
        Self { rule, calm }
    }

    fn config(rule: &str, robust: &str) -> Config {
        let sets = [
            format!("mixing.rule={rule}"),
            format!("mixing.robust={robust}"),
            "data.synthetic.odd_group=false".to_owned(),
            "clients.assignment=uniform".to_owned(),
            "clients.count=5".to_owned(),
            // The screening is another defence; here is to be seen what this one does.
            "screening.max_norm_ratio=1e30".to_owned(),
        ];
        preset("odd-client", &sets)
    }

    /// What is left under an attack: without defence, with norm-clip, multi-krum and trimmed-mean.
    fn shares(&self, attack: Attack) -> [f64; 4] {
        let shares = ["none", "norm-clip", "multi-krum", "trimmed-mean"].map(|robust| {
            let config = Self::config(self.rule, robust);
            let (mixing, rounds) = (config.mixing.clone(), config.federation.rounds);
            let poisoned = move || -> Box<dyn MixingRule> {
                Box::new(Poisoned { rule: rule_of_run(&mixing, rounds), attack })
            };
            honest(&ruled(config, Box::new(poisoned)).events) / self.calm
        });
        let cells = shares.map(|share| format!("{share:.2}")).join(" | ");
        println!("| {} | {attack} | | {cells} |", self.rule);
        shares
    }
}

#[test]
fn one_model_for_all_survives_one_malicious_client_of_five() {
    let siege = Siege::new("fedavg");
    siege.shares(Attack(-1.0));
    for attack in [Attack(-10.0), Attack(100.0)] {
        let [none, robust @ ..] = siege.shares(attack);
        assert!(robust.iter().all(|kept| *kept > KEPT), "{attack}: {robust:?}");
        assert!(none < KEPT, "{attack} does no harm: {none}");
    }
}

#[test]
fn models_of_ones_own_survive_one_malicious_client_of_five() {
    let siege = Siege::new("fellrec");
    for attack in [Attack(-1.0), Attack(-10.0), Attack(100.0)] {
        let [_, robust @ ..] = siege.shares(attack);
        assert!(robust.iter().all(|kept| *kept > KEPT), "{attack}: {robust:?}");
    }
}
