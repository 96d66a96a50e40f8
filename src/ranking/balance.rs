//! How evenly clients are served.
//!
//! Clients differ in difficulty, so a plain spread says little; the fair measure is each client's
//! ratio to its own local-only and its own central result (method.md 7).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::ClientId;

/// One client's result under some metric, larger is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientValue {
    /// The client.
    pub client: ClientId,
    /// What it reached.
    pub value: f64,
    /// What it reached training alone, where that was run.
    pub local_only: Option<f64>,
    /// What it reached with everybody's data in one place, where that was run.
    pub central: Option<f64>,
}

/// The spread of a metric over clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Unweighted mean over clients.
    pub mean: f64,
    /// Standard deviation over clients; they are all there are, so divided by their number.
    pub standard_deviation: f64,
    /// Largest minus smallest value.
    pub range: f64,
    /// The client with the smallest value, the smaller id on a tie.
    pub worst: ClientValue,
    /// Worst over best value; `None` where the best is 0.
    pub worst_to_best: Option<f64>,
    /// Gini coefficient: 0 when all are equal, towards 1 when one has everything; 0 when all are 0.
    pub gini: f64,
    /// One a client, in the order given.
    pub ratios: Vec<ClientRatios>,
}

/// A client against what it would have without the federation, and with no wall at all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRatios {
    /// The client.
    pub client: ClientId,
    /// Value over local-only value: above 1 the federation helps. `None` where unknown or divided by 0.
    pub to_local_only: Option<f64>,
    /// Value over central value. `None` where unknown or divided by 0.
    pub to_central: Option<f64>,
}

/// Values that have no balance.
#[derive(Debug, PartialEq, Error)]
pub enum BalanceError {
    /// There are none.
    #[error("got no client, expected at least one")]
    NoClients,

    /// A metric is below 0 or no number.
    #[error("{client}: got {value}, expected a finite value of at least 0")]
    Value {
        /// Whose.
        client: ClientId,
        /// The value.
        value: f64,
    },
}

impl Balance {
    /// The balance of `clients`.
    ///
    /// # Errors
    /// No client, or a value that is negative or not finite.
    pub fn of(clients: &[ClientValue]) -> Result<Self, BalanceError> {
        for &ClientValue { client, value, .. } in clients {
            if !value.is_finite() || value < 0.0 {
                return Err(BalanceError::Value { client, value });
            }
        }
        let mut ascending = clients.to_vec();
        ascending.sort_by(|a, b| a.value.total_cmp(&b.value).then(a.client.cmp(&b.client)));
        let [worst, ..] = ascending[..] else { return Err(BalanceError::NoClients) };
        let best = ascending[ascending.len() - 1];

        let count = clients.len() as f64;
        let mean = clients.iter().map(|client| client.value).sum::<f64>() / count;
        let squares = clients.iter().map(|client| (client.value - mean).powi(2));
        Ok(Self {
            mean,
            standard_deviation: (squares.sum::<f64>() / count).sqrt(),
            range: best.value - worst.value,
            worst,
            worst_to_best: ratio(worst.value, Some(best.value)),
            gini: gini(&ascending),
            ratios: clients.iter().map(ClientRatios::of).collect(),
        })
    }
}

impl ClientRatios {
    fn of(client: &ClientValue) -> Self {
        Self {
            client: client.client,
            to_local_only: ratio(client.value, client.local_only),
            to_central: ratio(client.value, client.central),
        }
    }
}

fn ratio(value: f64, to: Option<f64>) -> Option<f64> {
    to.filter(|&to| to > 0.0).map(|to| value / to)
}

/// Over ascending values x_1..x_n: `sum_i (2i - n - 1) x_i / (n sum_i x_i)`.
fn gini(ascending: &[ClientValue]) -> f64 {
    let count = ascending.len() as f64;
    let total: f64 = ascending.iter().map(|client| client.value).sum();
    if total == 0.0 {
        return 0.0;
    }
    let weighted =
        |(i, client): (u32, &ClientValue)| (2.0 * f64::from(i) - count - 1.0) * client.value;
    (1..).zip(ascending).map(weighted).sum::<f64>() / (count * total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clients(values: &[f64]) -> Vec<ClientValue> {
        let client = |(id, &value): (u32, &f64)| ClientValue {
            client: ClientId(id),
            value,
            local_only: None,
            central: None,
        };
        (0..).zip(values).map(client).collect()
    }

    #[test]
    fn by_hand() {
        let mut clients = clients(&[0.4, 0.1, 0.1]);
        clients[0].local_only = Some(0.2);
        clients[1].central = Some(0.0);
        let balance = Balance::of(&clients).expect("three clients");
        assert!((balance.mean - 0.2).abs() < 1e-15);
        assert!((balance.standard_deviation - 0.02_f64.sqrt()).abs() < 1e-15);
        assert!((balance.range - 0.3).abs() < 1e-15);
        assert_eq!(balance.worst.client, ClientId(1));
        assert_eq!(balance.worst_to_best, Some(0.25));
        // Mean absolute difference 0.4 / 3 over all 9 pairs, over twice the mean.
        assert!((balance.gini - 1.0 / 3.0).abs() < 1e-12, "{}", balance.gini);
        assert_eq!(balance.ratios[0].to_local_only, Some(2.0));
        assert_eq!(balance.ratios[1].to_central, None);
    }

    #[test]
    fn nothing_and_nonsense_are_refused_and_zeros_are_equal() {
        assert_eq!(Balance::of(&[]), Err(BalanceError::NoClients));
        assert!(Balance::of(&clients(&[0.1, f64::NAN])).is_err());
        let zeros = Balance::of(&clients(&[0.0, 0.0])).expect("legal");
        assert_eq!((zeros.gini, zeros.worst_to_best), (0.0, None));
    }

    proptest! {
        /// Gini is half the relative mean absolute difference over all pairs.
        #[test]
        fn gini_equals_the_pairwise_definition(
            values in proptest::collection::vec(0.01_f64..1.0, 1..12)
        ) {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let differences: f64 =
                values.iter().flat_map(|a| values.iter().map(move |b| (a - b).abs())).sum();
            let expected = differences / (2.0 * (values.len() as f64).powi(2) * mean);
            let balance = Balance::of(&clients(&values)).expect("legal");
            prop_assert!((balance.gini - expected).abs() < 1e-12);
        }
    }
}
