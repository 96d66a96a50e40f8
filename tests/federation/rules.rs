//! method.md section 3, steps 3 and 4: attention and normalisation; the baselines of section 9.

use std::collections::BTreeMap;

use fellrec::config::{MixingGroups, MixingRuleKind, Normalisation};
use fellrec::federation::matrix::{Grouped, Matrix};
use fellrec::federation::mixing::{
    FellRec, MixingError, MixingInput, MixingRule, MixingWeights, rule_from, rule_of_run,
};
use fellrec::federation::similarity::similarity;
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::{Part, Theta};
use proptest::prelude::*;

use crate::support::{cohort, for_all, matrix, published, random_theta, random_thetas};

fn weights_of(
    rule: &dyn MixingRule,
    thetas: &[Theta],
    openness: &BTreeMap<ClientId, f64>,
) -> Result<MixingWeights, MixingError> {
    let data_sizes = (0..thetas.len()).map(|c| (ClientId(c as u32), 10 + 10 * c as u64)).collect();
    let cohort = cohort(thetas);
    let round = Round(0);
    rule.weights(&MixingInput { round, cohort: &cohort, openness, data_sizes: &data_sizes })
}

fn front(weights: &MixingWeights) -> &Matrix {
    weights.matrices().of(Part::Front)
}

#[test]
fn attention_is_openness_times_sharpened_similarity() {
    let thetas = random_thetas(3);
    let config = fellrec::config::MixingConfig { sharpness: 3.0, ..published() };
    let s = similarity(config.similarity, &cohort(&thetas), config.groups).unwrap();
    let s = s.of(Part::Front);
    let openness: BTreeMap<_, _> =
        [0.2, 0.5, 1.0].into_iter().enumerate().map(|(c, w)| (ClientId(c as u32), w)).collect();
    let weights = weights_of(&FellRec::new(config), &thetas, &openness).unwrap();
    for (c, (_, w)) in openness.iter().enumerate() {
        let a: Vec<f64> =
            (0..3).map(|i| if i == c { 1.0 } else { w * s.get(c, i).powi(3) }).collect();
        for i in 0..3 {
            let expected = a[i] / a.iter().sum::<f64>();
            assert!((front(&weights).get(c, i) - expected).abs() < 1e-14);
        }
    }
    assert_eq!(weights.similarity().unwrap().of(Part::Front), s);
}

#[test]
fn softmax_is_a_row_softmax_with_opened_logits() {
    let thetas = random_thetas(3);
    let config = fellrec::config::MixingConfig {
        normalisation: Normalisation::Softmax,
        temperature: 0.3,
        ..published()
    };
    let s = similarity(config.similarity, &cohort(&thetas), config.groups).unwrap();
    let weights = weights_of(&FellRec::new(config), &thetas, &for_all(3, 0.4)).unwrap();
    for c in 0..3 {
        let opened = |i| if i == c { 0.0 } else { 0.4_f64.ln() };
        let exp: Vec<f64> =
            (0..3).map(|i| (s.of(Part::Front).get(c, i) / 0.3 + opened(i)).exp()).collect();
        for i in 0..3 {
            let expected = exp[i] / exp.iter().sum::<f64>();
            assert!((front(&weights).get(c, i) - expected).abs() < 1e-14);
        }
    }
}

/// Own weight 1 - w (1 - sigma), whatever the others are like and however many there are; among
/// the others the sharpened similarities decide.
#[test]
fn share_opens_by_heating_alone_and_divides_by_similarity_alone() {
    for clients in [2, 3, 7] {
        let thetas = random_thetas(clients);
        let config = fellrec::config::MixingConfig {
            normalisation: Normalisation::Share,
            self_weight: 0.6,
            sharpness: 2.0,
            ..published()
        };
        let s = similarity(config.similarity, &cohort(&thetas), config.groups).unwrap();
        let s = s.of(Part::Front);
        let n = clients as usize;
        let weights = weights_of(&FellRec::new(config), &thetas, &for_all(n, 0.5)).unwrap();
        for c in 0..n {
            assert!((front(&weights).get(c, c) - 0.8).abs() < 1e-14);
            let others: f64 = (0..n).filter(|i| *i != c).map(|i| s.get(c, i).powi(2)).sum();
            for i in (0..n).filter(|i| *i != c) {
                let expected = 0.2 * s.get(c, i).powi(2) / others;
                assert!((front(&weights).get(c, i) - expected).abs() < 1e-14);
            }
        }
    }
}

#[test]
fn share_leaves_a_closed_or_a_single_client_alone() {
    let config =
        || fellrec::config::MixingConfig { normalisation: Normalisation::Share, ..published() };
    let closed = weights_of(&FellRec::new(config()), &random_thetas(3), &for_all(3, 0.0)).unwrap();
    assert_eq!(front(&closed).row(1), [0.0, 1.0, 0.0]);
    let single = weights_of(&FellRec::new(config()), &random_thetas(1), &for_all(1, 1.0)).unwrap();
    assert_eq!(front(&single).row(0), [1.0]);
}

/// Without dynamic aggregation (method.md 9) the published form is opened uniform averaging.
#[test]
fn uniform_similarity_leaves_only_the_openness() {
    let config = fellrec::config::MixingConfig {
        similarity: fellrec::config::SimilarityKind::Uniform,
        ..published()
    };
    let weights = weights_of(&FellRec::new(config), &random_thetas(3), &for_all(3, 0.5)).unwrap();
    assert_eq!(front(&weights).row(0), [0.5, 0.25, 0.25]);
}

#[test]
fn softmax_survives_a_temperature_near_zero() {
    let config = fellrec::config::MixingConfig {
        normalisation: Normalisation::Softmax,
        temperature: 1e-300,
        ..published()
    };
    let weights = weights_of(&FellRec::new(config), &random_thetas(3), &for_all(3, 1.0)).unwrap();
    assert_eq!(front(&weights).row(1), [0.0, 1.0, 0.0]);
}

#[test]
fn full_similarity_and_openness_is_the_uniform_row() {
    let thetas: Vec<Theta> = (0..4).map(|_| random_theta(5)).collect();
    let weights = weights_of(&FellRec::new(published()), &thetas, &for_all(4, 1.0)).unwrap();
    assert!(front(&weights).rows().flatten().all(|w| (w - 0.25).abs() < 1e-15));
}

#[test]
fn closed_clients_keep_to_themselves() {
    for normalisation in [Normalisation::Sum, Normalisation::Softmax] {
        let config = fellrec::config::MixingConfig { normalisation, ..published() };
        let weights =
            weights_of(&FellRec::new(config), &random_thetas(2), &for_all(2, 0.0)).unwrap();
        assert_eq!(front(&weights), &matrix(&[&[1.0, 0.0], &[0.0, 1.0]]));
    }
}

#[test]
fn baselines_are_chosen_by_name() {
    let thetas = random_thetas(3);
    let rule = |rule| rule_from(&fellrec::config::MixingConfig { rule, ..published() });
    let (fellrec, fedavg, local) =
        (rule(MixingRuleKind::Fellrec), rule(MixingRuleKind::Fedavg), rule(MixingRuleKind::Local));
    assert_eq!([fellrec.name(), fedavg.name(), local.name()], ["fellrec", "fedavg", "local"]);
    let none = BTreeMap::new();
    let by_size = weights_of(&*fedavg, &thetas, &none).unwrap();
    for row in front(&by_size).rows() {
        assert_eq!(row, [10.0 / 60.0, 20.0 / 60.0, 30.0 / 60.0]);
    }
    let own = weights_of(&*local, &thetas, &none).unwrap();
    let identity = matrix(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]]);
    assert_eq!(front(&own), &identity);
}

/// Ten rounds of which the last three are fine-tuning: rounds 0 to 6 mix, 7 to 9 do not.
#[test]
fn fine_tuning_takes_the_last_rounds_from_any_rule() {
    let thetas = random_thetas(3);
    let (cohort, openness, data_sizes) = (cohort(&thetas), for_all(3, 1.0), for_all(3, 5));
    for rule in [MixingRuleKind::Fellrec, MixingRuleKind::Fedavg] {
        let plain = fellrec::config::MixingConfig { rule, ..published() };
        let tuned = fellrec::config::MixingConfig { fine_tune_rounds: 3, ..plain.clone() };
        let local = fellrec::config::MixingConfig { rule: MixingRuleKind::Local, ..published() };
        let weights = |config, round| {
            let (cohort, openness, data_sizes) = (&cohort, &openness, &data_sizes);
            let input = MixingInput { round: Round(round), cohort, openness, data_sizes };
            rule_of_run(config, 10).weights(&input).unwrap()
        };
        assert_eq!(rule_of_run(&tuned, 10).name(), rule_of_run(&plain, 10).name());
        for round in 0..10 {
            let expected = if round < 7 { &plain } else { &local };
            assert_eq!(weights(&tuned, round), weights(expected, round), "round {round}");
        }
        assert_ne!(weights(&plain, 9), weights(&tuned, 9));
    }
}

#[test]
fn what_is_missing_is_named() {
    let thetas = random_thetas(2);
    let rule = FellRec::new(published());
    let error = weights_of(&rule, &thetas, &for_all(1, 1.0)).unwrap_err();
    assert_eq!(error, MixingError::NoOpenness { client: ClientId(1) });
    let error = weights_of(&rule, &thetas, &for_all(2, 1.5)).unwrap_err();
    assert_eq!(error, MixingError::Openness { client: ClientId(0), got: 1.5 });
    let (cohort, sizes) = (cohort(&thetas), for_all(2, 0));
    let openness = for_all(2, 1.0);
    let input =
        MixingInput { round: Round(0), cohort: &cohort, openness: &openness, data_sizes: &sizes };
    let fedavg =
        rule_from(&fellrec::config::MixingConfig { rule: MixingRuleKind::Fedavg, ..published() });
    let none = BTreeMap::new();
    let missing = MixingInput { data_sizes: &none, ..input };
    let error = fedavg.weights(&missing).unwrap_err();
    assert_eq!(error, MixingError::NoDataSize { client: ClientId(0) });
    // Nobody trained: everybody keeps what it has.
    let kept = fedavg.weights(&input).unwrap();
    assert_eq!(front(&kept), &matrix(&[&[1.0, 0.0], &[0.0, 1.0]]));
}

#[test]
fn weights_that_are_none_are_refused() {
    let clients = || vec![ClientId(0), ClientId(1)];
    let bad: [&[f64]; 4] = [&[0.5, 0.6], &[1.5, -0.5], &[f64::NAN, 1.0], &[0.0, 0.0]];
    for row in bad {
        let error =
            MixingWeights::new(clients(), Grouped::One(matrix(&[&[1.0, 0.0], row]))).unwrap_err();
        assert!(matches!(error, MixingError::Row { client: ClientId(1), .. }), "{row:?}");
    }
    let zeros = Grouped::One(matrix(&[&[1.0, 0.0], &[0.0, 0.0]]));
    assert!(MixingWeights::normalised(clients(), &zeros).is_err());
}

#[test]
fn weights_survive_the_run_history() {
    let config = fellrec::config::MixingConfig { groups: MixingGroups::Separate, ..published() };
    let weights = weights_of(&FellRec::new(config), &random_thetas(3), &for_all(3, 0.7)).unwrap();
    let json = serde_json::to_string(&weights).unwrap();
    assert_eq!(serde_json::from_str::<MixingWeights>(&json).unwrap(), weights);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_are_distributions(
        clients in 1..7usize,
        w in 0.0..=1.0_f64,
        sharpness in 1.0..20.0_f64,
        softmax in any::<bool>(),
    ) {
        let normalisation = if softmax { Normalisation::Softmax } else { Normalisation::Sum };
        let config = fellrec::config::MixingConfig { sharpness, normalisation, ..published() };
        let thetas = random_thetas(clients as u64);
        let weights = weights_of(&FellRec::new(config), &thetas, &for_all(clients, w)).unwrap();
        for row in front(&weights).rows() {
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(row.iter().all(|weight| (0.0..=1.0).contains(weight)));
        }
    }
}
