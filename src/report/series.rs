//! One value a client and round, and how it is spread over many clients.

use std::collections::BTreeMap;

use super::History;
use crate::history::ClientRound;
use crate::ids::ClientId;
use crate::ranking::Metrics;

/// The cut-off of the validation metric that plots and decisions go by.
const NDCG_AT: u32 = 10;

/// What a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Training loss L_c. Unit: nats.
    Loss,
    /// Validation NDCG@10; the only quantity of state 0.
    Ndcg10,
    /// Openness w_c, in 0..1.
    Openness,
    /// Weight of a client's own tensors in its mix, in 0..1.
    SelfWeight,
    /// Front, body, back and waiting together. Unit: seconds.
    Seconds,
    /// Up and down together. Unit: bytes.
    Bytes,
}

/// (completed rounds, value) of every client that has any, rounds ascending.
pub type Series = BTreeMap<ClientId, Vec<(u64, f64)>>;

impl History {
    /// The series of every client. Rounds without a part are left out.
    pub fn series(&self, quantity: Quantity) -> Series {
        let of_client = |value: fn(&ClientRound) -> f64| {
            let rounds = self.rounds.iter().flat_map(move |(round, committed)| {
                let clients = committed.clients.iter();
                clients.map(move |(client, part)| (round.next().0, *client, value(part)))
            });
            by_client(rounds)
        };
        match quantity {
            // A gap where a client had no rows to train on.
            Quantity::Loss => of_client(|part| part.report.measured_loss().unwrap_or(f64::NAN)),
            Quantity::Openness => of_client(|part| part.openness),
            Quantity::Seconds => of_client(|part| {
                let cost = &part.cost;
                cost.front_secs + cost.body_secs + cost.back_secs + cost.wait_secs
            }),
            Quantity::Bytes => of_client(|part| (part.cost.bytes_up + part.cost.bytes_down) as f64),
            Quantity::SelfWeight => by_client(self.rounds.iter().flat_map(|(round, committed)| {
                let own = committed.self_weight.iter();
                own.map(move |(client, weight)| (round.next().0, *client, *weight))
            })),
            Quantity::Ndcg10 => {
                by_client(self.evaluations.iter().flat_map(|(state, evaluation)| {
                    let clients = evaluation.clients.iter();
                    clients.filter_map(move |(client, m)| Some((state.0, *client, ndcg10(m)?)))
                }))
            }
        }
    }
}

/// NDCG@10, if it was measured.
pub(super) fn ndcg10(metrics: &Metrics) -> Option<f64> {
    metrics.ndcg.get(&NDCG_AT).copied()
}

fn by_client(points: impl Iterator<Item = (u64, ClientId, f64)>) -> Series {
    let mut series = Series::new();
    for (round, client, value) in points {
        series.entry(client).or_default().push((round, value));
    }
    series
}

/// Where the clients are in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Completed rounds.
    pub round: u64,
    /// Smallest value.
    pub min: f64,
    /// A twentieth of the clients is at most here.
    pub p5: f64,
    /// A quarter.
    pub p25: f64,
    /// Half.
    pub median: f64,
    /// Three quarters.
    pub p75: f64,
    /// All but a twentieth.
    pub p95: f64,
    /// Largest value.
    pub max: f64,
}

/// The spread over clients in every round that has a finite value.
pub fn spread(series: &Series) -> Vec<Spread> {
    let mut by_round: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (round, value) in series.values().flatten().filter(|(_, value)| value.is_finite()) {
        by_round.entry(*round).or_default().push(*value);
    }
    let spread = |(round, mut values): (u64, Vec<f64>)| {
        values.sort_by(f64::total_cmp);
        let at = |share| quantile(&values, share);
        Spread {
            round,
            min: at(0.0),
            p5: at(0.05),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            max: at(1.0),
        }
    };
    by_round.into_iter().map(spread).collect()
}

/// The value below which `share` of the ascending `values` lie, interpolated between neighbours.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + place.fract() * (above - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_and_gaps_do_not_count() {
        let series: Series = (0..5_u32)
            .map(|client| (ClientId(client), vec![(1, f64::from(client)), (2, f64::NAN)]))
            .collect();
        let [one] = spread(&series)[..] else { panic!("round 2 has no value") };
        assert_eq!((one.min, one.p25, one.median, one.max), (0.0, 1.0, 2.0, 4.0));
        assert!((one.p5 - 0.2).abs() < 1e-12, "{one:?}");
    }
}
