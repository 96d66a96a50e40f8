//! method.md section 4, with the golden numbers to the printed digits.

use std::collections::BTreeMap;

use fellrec::config::{HeatingConfig, HeatingForm, HeatingOverride, OrNone};
use fellrec::federation::heating::{Heating, HeatingError};
use fellrec::ids::{ClientId, Round};
use proptest::prelude::*;

fn config(form: HeatingForm) -> HeatingConfig {
    HeatingConfig { form, alpha: 0.7, beta: 5.0, tau: OrNone::None, overrides: Vec::new() }
}

fn by_client(losses: &[f64]) -> BTreeMap<ClientId, f64> {
    losses
        .iter()
        .enumerate()
        .map(|(c, &loss)| (ClientId(u32::try_from(c).unwrap()), loss))
        .collect()
}

fn openness(config: &HeatingConfig, losses: &[f64], t: u64) -> Vec<f64> {
    let heating = Heating::new(config).unwrap();
    heating.openness(&by_client(losses), Round(t)).unwrap().into_values().collect()
}

fn rounded(values: &[f64], digits: usize) -> Vec<String> {
    values.iter().map(|w| format!("{w:.digits$}")).collect()
}

#[test]
fn intended_golden_numbers() {
    let w: Vec<f64> =
        (0..7).map(|t| openness(&config(HeatingForm::Intended), &[6.0; 5], t)[0]).collect();
    assert_eq!(rounded(&w[..5], 3), ["0.747", "0.870", "0.951", "0.988", "0.998"]);
    assert_eq!(rounded(&w[5..], 2), ["1.00", "1.00"]);
}

#[test]
fn reference_golden_numbers() {
    let w: Vec<f64> =
        (0..7).map(|t| openness(&config(HeatingForm::Reference), &[6.0; 5], t)[0]).collect();
    assert_eq!(rounded(&w[..1], 3), ["0.747"]);
    assert_eq!(rounded(&w[1..2], 4), ["0.9999"]);
    assert!(w[2..].iter().all(|w| format!("{w:.4}") == "1.0000"), "{w:?}");
}

#[test]
fn computed_example_row_of_the_published_form() {
    let losses = [6.3, 5.4, 6.1, 6.3, 5.6];
    let at = |t| rounded(&openness(&config(HeatingForm::Intended), &losses, t), 3);
    assert_eq!(at(0), ["0.721", "0.797", "0.739", "0.721", "0.781"]);
    assert_eq!(at(2), ["0.912", "0.990", "0.940", "0.912", "0.982"]);
    assert!(openness(&config(HeatingForm::Intended), &losses, 5).iter().all(|&w| w > 0.99));
}

#[test]
fn published_form_depends_on_the_number_of_clients() {
    let w = openness(&config(HeatingForm::Intended), &[6.0; 6_040], 0);
    assert_eq!(rounded(&w[..1], 3), ["0.999"]);
}

#[test]
fn single_participant_has_share_one() {
    for form in [HeatingForm::Intended, HeatingForm::Reference] {
        for t in [0, 3, 1_000_000] {
            assert!((openness(&config(form), &[6.3], t)[0] - 0.7_f64.tanh()).abs() < 1e-15);
        }
    }
}

#[test]
fn off_is_fully_open() {
    assert_eq!(openness(&config(HeatingForm::Off), &[6.3, 0.1], 0), [1.0, 1.0]);
}

#[test]
fn reference_temperature_is_its_own_unless_set() {
    let mut sharp = config(HeatingForm::Intended);
    sharp.tau = OrNone::Some(0.05);
    let mut reference = config(HeatingForm::Reference);
    // At t = 0 and beta = 1 both exponents are 1: only tau could tell the forms apart.
    (sharp.beta, reference.beta) = (1.0, 1.0);
    let losses = [6.3, 5.4, 6.1];
    assert_eq!(openness(&sharp, &losses, 0), openness(&reference, &losses, 0));
}

#[test]
fn overrides_hold_for_their_client_only() {
    let mut with = config(HeatingForm::Intended);
    with.overrides =
        vec![HeatingOverride { client: ClientId(1), alpha: Some(0.2), beta: Some(10.0) }];
    let mut all = config(HeatingForm::Intended);
    (all.alpha, all.beta) = (0.2, 10.0);
    let losses = [6.3, 5.4, 6.1];
    let (got, default, slow) = (
        openness(&with, &losses, 2),
        openness(&config(HeatingForm::Intended), &losses, 2),
        openness(&all, &losses, 2),
    );
    assert_eq!(got, [default[0], slow[1], default[2]]);
}

#[test]
fn a_loss_that_is_not_finite_is_refused_by_client() {
    for got in [f64::NAN, f64::INFINITY] {
        let heating = Heating::new(&config(HeatingForm::Intended)).unwrap();
        let error = heating.openness(&by_client(&[6.3, got]), Round(0)).unwrap_err();
        assert!(matches!(error, HeatingError::NonFiniteLoss { client: ClientId(1), .. }));
    }
}

#[test]
fn a_bad_override_is_named() {
    let mut bad = config(HeatingForm::Scaled);
    bad.overrides = vec![HeatingOverride { client: ClientId(3), alpha: None, beta: Some(0.0) }];
    let message = Heating::new(&bad).unwrap_err().to_string();
    assert_eq!(
        message,
        "heating.overrides beta of client-3 is 0, expected a finite number above 0"
    );
}

#[test]
fn scaled_starts_near_zero_and_is_open_after_beta_rounds() {
    let w: Vec<f64> =
        (0..6).map(|t| openness(&config(HeatingForm::Scaled), &[6.0; 5], t)[0]).collect();
    assert_eq!(rounded(&w, 3), ["0.173", "0.436", "0.782", "0.993", "1.000", "1.000"]);
    assert!(w[3] < 1.0 && w[4] == 1.0);
}

#[test]
fn scaled_twice_the_median_loss_takes_twice_as_long() {
    let losses = [2.0, 2.0, 4.0];
    let w = |t| openness(&config(HeatingForm::Scaled), &losses, t);
    assert!(w(8)[2] < 1.0 && w(9)[2] == 1.0);
    assert!((w(1)[2] - w(0)[0]).abs() < 1e-12, "round 2 of the slow one is round 1 of the others");
}

#[test]
fn scaled_survives_losses_of_zero() {
    assert_eq!(openness(&config(HeatingForm::Scaled), &[0.0, 0.0], 9), [1.0, 1.0]);
    let w = openness(&config(HeatingForm::Scaled), &[0.0, 0.0, 3.0], 0);
    assert!(w[0] > 0.0 && w[2] == 0.0, "{w:?}");
}

fn losses() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.01..20.0_f64, 1..9)
}

fn form() -> impl Strategy<Value = HeatingForm> {
    prop_oneof![
        Just(HeatingForm::Intended),
        Just(HeatingForm::Reference),
        Just(HeatingForm::Scaled)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn openness_is_in_the_unit_interval(
        form in form(),
        losses in prop::collection::vec(-1e300..1e300_f64, 1..9),
        t in 0..u64::MAX,
        alpha in 1e-300..1e300_f64,
        beta in 1e-300..1e300_f64,
    ) {
        let config = HeatingConfig { alpha, beta, ..config(form) };
        for w in openness(&config, &losses, t) {
            prop_assert!((0.0..=1.0).contains(&w), "{w}");
        }
    }

    #[test]
    fn openness_rises_with_the_round_at_equal_losses(form in form(), losses in losses(), t in 0..30u64) {
        let (now, next) = (openness(&config(form), &losses, t), openness(&config(form), &losses, t + 1));
        prop_assert!(now.iter().zip(&next).all(|(now, next)| next >= now));
    }

    #[test]
    fn a_higher_loss_opens_no_faster(form in form(), losses in losses(), t in 0..30u64) {
        let w = openness(&config(form), &losses, t);
        for (a, b) in (0..w.len()).flat_map(|a| (0..w.len()).map(move |b| (a, b))) {
            prop_assert!(losses[a] <= losses[b] || w[a] <= w[b]);
        }
    }

    #[test]
    fn scaled_is_free_of_the_scale_of_the_loss(losses in losses(), t in 0..12u64) {
        // A power of 2 scales without rounding, so the result is the same to the bit.
        let doubled: Vec<f64> = losses.iter().map(|loss| loss * 2.0).collect();
        let scaled = config(HeatingForm::Scaled);
        prop_assert_eq!(openness(&scaled, &losses, t), openness(&scaled, &doubled, t));
    }

    #[test]
    fn scaled_is_free_of_the_number_of_clients(losses in losses(), copies in 2..5usize, t in 0..12u64) {
        let scaled = config(HeatingForm::Scaled);
        let many = openness(&scaled, &losses.repeat(copies), t);
        prop_assert_eq!(&openness(&scaled, &losses, t), &many[..losses.len()]);
    }
}
