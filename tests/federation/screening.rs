//! architecture.md section 4: what is screened out before mixing, and why.

use std::collections::BTreeMap;

use fellrec::config::ScreeningConfig;
use fellrec::federation::screening::{
    Rejection, ScreeningVerdict, Submission, judge_round, screen,
};
use fellrec::ids::ClientId;
use fellrec::model::slice::Theta;
use tch::Tensor;

use crate::support::random_theta;

const CONFIG: ScreeningConfig = ScreeningConfig { max_norm_ratio: 100.0 };

/// Five clients that moved by about the same, the last one as `spoil` makes it.
fn verdicts(loss: f64, spoil: impl FnOnce(&mut Theta)) -> BTreeMap<ClientId, ScreeningVerdict> {
    let start = random_theta(0);
    let mut thetas: Vec<Theta> = (1..=5).map(random_theta).collect();
    spoil(&mut thetas[4]);
    let losses = [6.3, 5.4, 6.1, 6.3, loss];
    let submissions = (0..5).map(|c| {
        let submission = Submission { theta: &thetas[c], start: &start, loss: losses[c] };
        (ClientId(c as u32), submission)
    });
    screen(&submissions.collect(), &CONFIG)
}

/// Why the last client was refused; the others must not have been.
fn rejection(loss: f64, spoil: impl FnOnce(&mut Theta)) -> Rejection {
    let mut verdicts = verdicts(loss, spoil);
    let last = verdicts.remove(&ClientId(4)).unwrap();
    assert!(verdicts.values().all(ScreeningVerdict::is_accepted), "{verdicts:?}");
    match last {
        ScreeningVerdict::Rejected(rejection) => rejection,
        accepted => panic!("{accepted:?}"),
    }
}

#[test]
fn a_clean_round_is_accepted_with_its_norms() {
    let verdicts = verdicts(5.6, |_| ());
    let norm = |c: u32| match verdicts[&ClientId(c)] {
        ScreeningVerdict::Accepted { norm } => norm,
        ref other => panic!("{other:?}"),
    };
    let (start, theta) = (random_theta(0), random_theta(1));
    let pairs = crate::support::flat(&start).into_iter().zip(crate::support::flat(&theta));
    let expected = pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!((norm(0) - expected).abs() < 1e-12);
}

#[test]
fn losses_and_tensors_must_be_finite() {
    let nan = rejection(f64::NAN, |_| ());
    assert_eq!(nan, Rejection::NonFiniteLoss { got: "NaN".to_owned() });
    for value in [f64::NAN, f64::INFINITY] {
        let tensor = rejection(5.6, |theta| {
            let _ = theta.body.tensors[1].tensor.get(3).fill_(value);
        });
        let name = "layers.1.self_attn.q_proj.lora_B.weight".to_owned();
        assert_eq!(tensor, Rejection::NonFiniteTensor { name });
    }
}

#[test]
fn shape_and_size_must_be_the_models() {
    let reshaped = rejection(5.6, |theta| {
        let tensor = &mut theta.front.tensors[1].tensor;
        *tensor = tensor.tr();
    });
    assert_eq!(
        reshaped.to_string(),
        "the layout is not the model's: tensor layers.0.self_attn.q_proj.lora_A.weight \
         has shape [5, 2], expected [2, 5]"
    );
    let grown = rejection(5.6, |theta| {
        theta.front.tensors[0].tensor = Tensor::zeros([1_000], tch::kind::FLOAT_CPU);
    });
    assert!(matches!(grown, Rejection::Oversized { .. }), "{grown:?}");
}

#[test]
fn an_update_that_dwarfs_the_others_is_refused() {
    let huge = rejection(5.6, |theta| {
        let _ = theta.back.tensors[0].tensor.shallow_clone().fill_(1e6);
    });
    assert!(matches!(huge, Rejection::NormTooLarge { ratio: 100.0, .. }), "{huge:?}");
}

fn judged(norms: &[f64]) -> Vec<bool> {
    let inspections = norms.iter().enumerate();
    let inspections = inspections.map(|(c, norm)| (ClientId(c as u32), Ok(norm * norm))).collect();
    judge_round(inspections, &CONFIG).values().map(ScreeningVerdict::is_accepted).collect()
}

#[test]
fn one_or_two_participants_cannot_be_told_apart_by_size() {
    assert_eq!(judged(&[1e9]), [true]);
    assert_eq!(judged(&[1.0, 1e9]), [true, true]);
    assert_eq!(judged(&[1.0, 1.0, 1e9]), [true, true, false]);
}

#[test]
fn clients_without_a_step_neither_fail_nor_set_the_scale() {
    assert_eq!(judged(&[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]), [true; 7]);
    assert_eq!(judged(&[0.0, 1.0, 1e9]), [true; 3]);
}

#[test]
fn verdicts_survive_the_run_history() {
    for verdict in verdicts(f64::INFINITY, |_| ()).values() {
        let json = serde_json::to_string(verdict).unwrap();
        assert_eq!(&serde_json::from_str::<ScreeningVerdict>(&json).unwrap(), verdict);
    }
}
