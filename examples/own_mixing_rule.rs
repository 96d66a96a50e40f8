//! A mixing rule of one's own: learn only from the k most similar clients.
//!
//! Run it with `cargo run --example own_mixing_rule`. It needs no data and no configuration.
//!
//! A rule answers one question: with what weight does client c take over the tensors of each
//! participant? It returns one row a client, and the library does the rest: it checks that rows
//! are distributions, mixes all tensors from one snapshot in client-id order, and leaves a client
//! whose row is all on itself untouched to the bit.

use std::collections::BTreeMap;

use anyhow::Result;
use fellrec::config::{MixingGroups, SimilarityKind};
use fellrec::federation::cohort::{Cohort, ParticipantTheta};
use fellrec::federation::matrix::Matrix;
use fellrec::federation::mixing::{MixingError, MixingInput, MixingRule, MixingWeights, mix};
use fellrec::federation::similarity::similarity;
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::{NamedTensor, Slice, Theta};
use tch::{Kind, Tensor};

/// Takes over the tensors of the `k` most similar clients, as far as heating has opened it.
struct NearestK {
    k: usize,
}

// Step 1. A rule is a name and a pure function: no state, no clock, no random numbers, so that a
// resumed round is the same round.
impl MixingRule for NearestK {
    fn name(&self) -> &'static str {
        "nearest-k"
    }

    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError> {
        // Step 2. Compare the clients: here by their parameters, one matrix for all tensors. Rows
        // and columns follow `clients`, ascending.
        let clients = input.cohort.clients();
        let alike = similarity(SimilarityKind::Parameters, input.cohort, MixingGroups::One)?;
        let openness: Vec<f64> =
            clients.iter().map(|&client| input.openness_of(client)).collect::<Result<_, _>>()?;

        // Step 3. Turn similarity into attention: 1 for oneself, openness times similarity for
        // the nearest, nothing for the rest.
        let attention = alike.map(|s| {
            Matrix::from_fn(s.size(), |c, i| {
                if c == i {
                    1.0
                } else if self.is_near(s.row(c), c, i) {
                    openness[c] * s.get(c, i)
                } else {
                    0.0
                }
            })
        });

        // Step 4. Let the library divide the rows by their sums and check them. The similarity
        // goes along for the reports.
        Ok(MixingWeights::normalised(clients, &attention)?.with_similarity(alike))
    }
}

impl NearestK {
    /// Whether fewer than k others are more similar to `c` than `i`; ties go to the smaller id.
    fn is_near(&self, row: &[f64], c: usize, i: usize) -> bool {
        let closer = |&j: &usize| j != c && (row[j] > row[i] || (row[j] == row[i] && j < i));
        (0..row.len()).filter(closer).count() < self.k
    }
}

fn main() -> Result<()> {
    // Two tastes: clients 0, 1 and 2 are near one point, clients 3 and 4 near another.
    tch::manual_seed(7);
    let tastes = [random(64), random(64)];
    let thetas: Vec<Theta> = [0, 0, 0, 1, 1]
        .iter()
        .map(|&taste: &usize| {
            let tensor = &tastes[taste] + random(64) * 0.3;
            let front = Slice::new(vec![NamedTensor::new("layers.0.w", tensor)]);
            Theta { front, ..Theta::default() }
        })
        .collect();

    // In a run the aggregator brings the cohort and the supervisor the openness.
    let cohort = Cohort::new((0u32..).zip(&thetas).map(|(id, theta)| ParticipantTheta {
        client: ClientId(id),
        theta,
        start: None,
    }))?;
    let openness: BTreeMap<_, _> = cohort.clients().into_iter().map(|c| (c, 0.8)).collect();
    let data_sizes = BTreeMap::new();
    let input = MixingInput {
        round: Round(0),
        cohort: &cohort,
        openness: &openness,
        data_sizes: &data_sizes,
    };

    let rule = NearestK { k: 1 };
    let weights = rule.weights(&input)?;
    let mixed = mix(&cohort, &weights)?;

    println!("rule {}: what each client takes from clients 0 to 4", rule.name());
    for (part, matrix) in weights.matrices().iter() {
        for (client, row) in weights.clients().iter().zip(matrix.rows()) {
            let row: Vec<String> = row.iter().map(|weight| format!("{weight:.2}")).collect();
            let before = &thetas[client.0 as usize].part(part).tensors[0].tensor;
            let step = (&mixed[client].part(part).tensors[0].tensor - before).norm();
            println!("{client}  [{}]  moved by {:.3}", row.join(" "), step.double_value(&[]));
        }
    }
    Ok(())
}

fn random(numbers: i64) -> Tensor {
    Tensor::randn([numbers], (Kind::Float, tch::Device::Cpu))
}
